"""Files as a browser hands them over, into the folder of uploads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from glm_rag_ingest.loaders.suffixes import BY_SUFFIX

# What the loaders read; the page offers these, the ingestion judges the bytes. With their dots:
# `text` alone means every kind of text to Streamlit.
FILE_TYPES = tuple(BY_SUFFIX)


class Upload(Protocol):
    """A file as a browser hands it over."""

    name: str

    def getvalue(self) -> bytes:
        """Its bytes."""
        ...


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
    from glm_rag.knowledge.uploads import distinct_names

    names = distinct_names(file.name for file in files)
    return [Named(name, file) for name, file in zip(names, files, strict=True)]


def save(upload: Upload, into: Path) -> Path:
    """Write an upload into a folder, whole or not at all; the same name again replaces it."""
    from glm_rag.knowledge.uploads import IncomingFile

    incoming = IncomingFile(into)
    try:
        incoming.write(upload.getvalue())
        return incoming.keep(upload.name)
    except BaseException:
        incoming.discard()
        raise
