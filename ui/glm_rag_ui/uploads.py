"""Where uploaded files are kept, and under which names. Nothing here trusts a browser."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from glm_rag_ingest.loaders.suffixes import BY_SUFFIX

# What the loaders read; the page offers these, the ingestion judges the bytes. With their dots:
# `text` alone means every kind of text to Streamlit.
FILE_TYPES = tuple(BY_SUFFIX)
_NAME_BYTES = 150
_FALLBACK = "document"
_UNSAFE = re.compile(r'[<>:"|?*\x00-\x1f]')


class Upload(Protocol):
    """A file as a browser hands it over."""

    name: str

    def getvalue(self) -> bytes:
        """Its bytes."""
        ...


def safe_name(name: str) -> str:
    """A plain file name made of `name`: one path component, not hidden, at most 150 bytes.

    Path separators, control and direction characters are taken out; the ending is kept.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    kept = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in last)
    clean = " ".join(_UNSAFE.sub(" ", kept).split()).lstrip(". ").rstrip(". ")
    stem, dot, ending = clean.rpartition(".")
    if not dot:
        stem, ending = clean, ""
    room = _NAME_BYTES - len(f"{dot}{ending}".encode())
    if room < 1:  # a name that is all ending
        stem, dot, ending, room = clean, "", "", _NAME_BYTES
    stem = stem.encode()[:room].decode("utf-8", "ignore").strip()
    return f"{stem or _FALLBACK}{dot}{ending}"


def folder(home: Path, kb: str) -> Path:
    """Folder of the files uploaded into the knowledge base `kb`.

    Raises:
        ConfigError: the name could leave the data folder.
        OSError: it must be made anew and cannot be.
    """
    from glm_rag.knowledge.uploads import uploads_folder

    return uploads_folder(kb, home)


@dataclass(slots=True)  # not frozen: `Upload` has a name that can be set
class Named:
    """An upload under another name."""

    name: str
    upload: Upload

    def getvalue(self) -> bytes:
        """Its bytes."""
        return self.upload.getvalue()


def distinct(files: Sequence[Upload]) -> list[Named]:
    """Files of one choice that have the same name get numbers: none replaces another."""
    counts: Counter[str] = Counter()
    found = []
    for file in files:
        name = safe_name(file.name)
        counts[name] += 1
        number = f"({counts[name]}) " if counts[name] > 1 else ""
        found.append(Named(f"{number}{name}", file))
    return found


def save(upload: Upload, into: Path) -> Path:
    """Write an upload into a folder, whole or not at all; the same name again replaces it."""
    into.mkdir(parents=True, exist_ok=True)
    target = into / safe_name(upload.name)
    handle, name = tempfile.mkstemp(dir=into, prefix=".", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(upload.getvalue())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return target
