"""ZIP archives: no text of their own, the files inside are read one by one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from glm_rag_ingest.loaders.base import Extracted, Member, failure
from glm_rag_ingest.loaders.zip_safety import entry_names, open_zip, read_entry

VERSION = "archive/1"
MEDIA_TYPE = "application/zip"


def extract(data: bytes) -> Extracted:
    """List the members. Raises `DocumentError`: `corrupt`, `empty`, or `unsupported` (too many)."""
    if not any(not entry.is_dir() for entry in open_zip(data).infolist()):
        raise failure("empty", "an archive without files")
    return Extracted("", members=_members(data))


def _members(data: bytes) -> Iterator[Member]:
    with open_zip(data) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        for name, entry in zip(entry_names(entries), entries, strict=True):
            yield Member(name, partial(read_entry, archive, entry))
