"""Choose the loader of a file, run it, and say in one line why it failed."""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
from pathlib import Path
from typing import Protocol, cast

from glm_rag.errors import DocumentError, GlmRagError
from glm_rag.types import ExtractedDocument
from glm_rag_ingest.loaders.base import Extracted, Loaded, failure
from glm_rag_ingest.loaders.encoding import looks_like_text

_BY_SUFFIX = {
    ".bmp": "image",
    ".csv": "delimited",
    ".doc": "legacy",
    ".docx": "docx",
    ".htm": "html",
    ".html": "html",
    ".ipynb": "notebook",
    ".jpeg": "image",
    ".jpg": "image",
    ".json": "json_lines",
    ".jsonl": "json_lines",
    ".log": "text",
    ".markdown": "markdown",
    ".md": "markdown",
    ".ndjson": "json_lines",
    ".odp": "legacy",
    ".ods": "excel",
    ".odt": "odt",
    ".ott": "odt",
    ".pdf": "pdf",
    ".png": "image",
    ".ppt": "legacy",
    ".pptm": "pptx",
    ".pptx": "pptx",
    ".rst": "text",
    ".tab": "delimited",
    ".text": "text",
    ".tif": "image",
    ".tiff": "image",
    ".tsv": "delimited",
    ".txt": "text",
    ".webp": "image",
    ".xhtml": "html",
    ".xls": "excel",
    ".xlsb": "excel",
    ".xlsm": "excel",
    ".xlsx": "excel",
}
SUPPORTED = tuple(sorted(_BY_SUFFIX))
# Raised when the choice between loaders or their shared text rules change what they give back;
# each loader has a version of its own. Documents of other versions are read again.
_VERSION = "1"
_MOST_BYTES = 1 << 30
_LONGEST_TITLE = 200  # characters; a page without line breaks may be one heading


class Loader(Protocol):
    """What each module of this package offers."""

    VERSION: str
    MEDIA_TYPE: str

    def extract(self, data: bytes) -> Extracted:
        """Read one file's bytes. Raises `DocumentError`, or anything the parser raises."""


def load(path: Path) -> Loaded:
    """Read a file, and the files inside it, into text.

    The loader is chosen by the name's extension; a name without one by the content.

    Raises:
        DocumentError: `unreadable`, `empty`, `unsupported`, `encrypted`, `corrupt`, `no_text`,
            `garbled`. The message is one line that begins with the reason.
        MissingDependencyError: the format's library is not installed.
    """
    source = path.resolve().as_uri()
    if path.suffix and path.suffix.lower() not in _BY_SUFFIX:
        raise _unsupported(path)
    data, stat = _read(path)
    if not data:
        raise failure("empty", "the file has 0 bytes")
    loader = _loader_for(path, data)
    extracted = _extract(loader, data)
    if not extracted.text.strip():
        raise failure("empty", "the file holds no text")
    document = ExtractedDocument(
        source=source,
        title=_short(extracted.title) or display_name(path),
        text=extracted.text,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        mtime=stat.st_mtime,
        media_type=loader.MEDIA_TYPE,
        parser_version=_version(loader),
        pages=extracted.pages,
        warnings=extracted.warnings,
    )
    return Loaded((document,))


def is_current(parser_version: str) -> bool:
    """Whether the loader that gave a document this `parser_version` would give the same today."""
    name = parser_version.partition("/")[0]
    return name in _BY_SUFFIX.values() and _version(_module(name)) == parser_version


@functools.cache
def versions() -> str:
    """Changes whenever any loader does or one is added: then failures are tried again."""
    known = [_version(_module(name)) for name in sorted(set(_BY_SUFFIX.values()))]
    return hashlib.sha256(repr((known, SUPPORTED)).encode()).hexdigest()[:12]


def display_name(path: Path) -> str:
    """The file's name with bytes that are not UTF-8 replaced, so that it can be printed."""
    return os.fsencode(path.name).decode("utf-8", "replace")


def _short(title: str) -> str:
    line = " ".join(title.split())
    return line if len(line) <= _LONGEST_TITLE else f"{line[: _LONGEST_TITLE - 1]}…"


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise failure("unreadable", "neither a file nor a folder", permanent=False)
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_size > _MOST_BYTES:
                raise failure("unsupported", f"larger than {_MOST_BYTES >> 30} GiB; split the file")
            return file.read(), stat
    except OSError as error:
        detail = (error.strerror or type(error).__name__).lower()
        raise failure("unreadable", detail, permanent=False) from error


def _loader_for(path: Path, data: bytes) -> Loader:
    name = _BY_SUFFIX.get(path.suffix.lower()) or _sniff(data)
    if name is None:
        raise _unsupported(path)
    return _module(name)


def _module(name: str) -> Loader:
    return cast("Loader", importlib.import_module(f"glm_rag_ingest.loaders.{name}"))


def _version(loader: Loader) -> str:
    return f"{loader.VERSION}.{_VERSION}"


def _sniff(data: bytes) -> str | None:
    if data.startswith(b"%PDF-"):
        return "pdf"
    if data.startswith(b"PK\3\4") and b"word/" in data:
        return "docx"
    if data[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    return "text" if looks_like_text(data) else None


def _unsupported(path: Path) -> DocumentError:
    kind = f"{path.suffix.lower()} files" if path.suffix else "binary files without an extension"
    return failure("unsupported", f"{kind} are not read; supported: {', '.join(SUPPORTED)}")


def _extract(loader: Loader, data: bytes) -> Extracted:
    try:
        return loader.extract(data)
    except GlmRagError:
        raise
    except MemoryError as error:
        raise failure("crash", "reading it needs more memory than allowed") from error
    # A parser may raise anything on a damaged file; whatever it is, the file cannot be read.
    except Exception as error:
        detail = f"the file is damaged ({type(error).__name__}: {error})"
        raise failure("corrupt", detail[:300]) from error
