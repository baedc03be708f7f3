"""Choose the loader of a file, run it, and say in one line why it failed."""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Protocol, cast

from glm_rag.errors import DocumentError, GlmRagError
from glm_rag.types import ExtractedDocument
from glm_rag_ingest.loaders import sniffing
from glm_rag_ingest.loaders.base import Extracted, Loaded, failure, garbled_share
from glm_rag_ingest.loaders.members import MemberReader
from glm_rag_ingest.loaders.suffixes import BY_NAME, BY_SUFFIX

SUPPORTED = tuple(sorted(BY_SUFFIX))
# Raised when the choice between loaders or their shared text rules change what they give back;
# each loader has a version of its own. Documents of other versions are read again.
_VERSION = "2"
# Between the version of a file's own loader and that of all loaders, which its members need.
_WITH_MEMBERS = "&"
_MOST_BYTES = 1 << 30
_HEAD_BYTES = 4096
_MOST_GARBLED = 0.25
_LONGEST_TITLE = 200  # characters; a page without line breaks may be one heading


class Loader(Protocol):
    """What each module of this package offers."""

    VERSION: str
    MEDIA_TYPE: str

    def extract(self, data: bytes) -> Extracted:
        """Read one file's bytes. Raises `DocumentError`, or anything the parser raises."""


def load(path: Path) -> Loaded:
    """Read a file, and the files inside it, into text.

    The loader is chosen by the name's extension; a name without one by the content. Members of
    archives and attachments of mails become documents whose source is the file's with
    `#path/inside` behind it; what is wrong with one of them is among the `failures`.

    Raises:
        DocumentError: `unreadable`, `empty`, `unsupported`, `encrypted`, `corrupt`, `no_text`,
            `garbled`. The message is one line that begins with the reason.
        MissingDependencyError: the format's library is not installed.
    """
    source = path.resolve().as_uri()
    data, stat = _read(path)
    extracted, document = _parse(display_name(path), data)
    document = replace(document, source=source, mtime=stat.st_mtime)
    inside = MemberReader(document, _parse)
    inside.read(extracted.members)
    if inside.found_any:
        # Whichever loader changes, what it would read differently may be in here.
        version = f"{document.parser_version}{_WITH_MEMBERS}{versions()}"
        document = replace(document, parser_version=version)
    if not document.text.strip() and not inside.documents:
        raise inside.all_failed()
    return Loaded((document, *inside.documents), tuple(inside.failures))


def is_current(parser_version: str) -> bool:
    """Whether the loader that gave a document this `parser_version` would give the same today.

    For a file with members, whether all loaders would.
    """
    own, _, all_loaders = parser_version.partition(_WITH_MEMBERS)
    name = own.partition("/")[0]
    if all_loaders not in ("", versions()):
        return False
    return name in _modules() and _version(_module(name)) == own


@functools.cache
def versions() -> str:
    """Changes whenever any loader does or one is added: then failures are tried again."""
    known = [_version(_module(name)) for name in _modules()]
    return hashlib.sha256(repr((known, sorted(BY_SUFFIX.items()))).encode()).hexdigest()[:12]


def _modules() -> list[str]:
    return sorted({loader.partition(":")[0] for loader in BY_SUFFIX.values()})


def display_name(path: Path) -> str:
    """The file's name with bytes that are not UTF-8 replaced, so that it can be printed."""
    return os.fsencode(path.name).decode("utf-8", "replace")


def _short(title: str) -> str:
    line = " ".join(title.split())
    return line if len(line) <= _LONGEST_TITLE else f"{line[: _LONGEST_TITLE - 1]}…"


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    is_named = not path.suffix or path.suffix.lower() in BY_SUFFIX
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise failure("unreadable", "neither a file nor a folder", permanent=False)
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            # Before the rest is read: films and disk images are large.
            if not is_named and not sniffing.may_be_known(head):
                raise _unsupported(path.suffix)
            stat = os.fstat(file.fileno())
            if stat.st_size > _MOST_BYTES:
                raise failure("unsupported", f"larger than {_MOST_BYTES >> 30} GiB; split the file")
            return head + file.read(), stat
    except OSError as error:
        detail = (error.strerror or type(error).__name__).lower()
        raise failure("unreadable", detail, permanent=False) from error


def _parse(name: str, data: bytes) -> tuple[Extracted, ExtractedDocument]:
    """Read the bytes of a file or member called `name`; source and time are the caller's to add."""
    if not data:
        raise failure("empty", "the file has 0 bytes")
    module, language, notes = _choose(name, data)
    loader = _module(module)
    extracted = _extract(loader, data)
    if not extracted.text.strip() and extracted.members == ():
        raise failure("empty", "the file holds no text")
    if garbled_share(extracted.text) > _MOST_GARBLED:
        raise failure("garbled", "most of its characters have no meaning outside its own fonts")
    media_type = f"text/x-{language}" if language else extracted.media_type or loader.MEDIA_TYPE
    document = ExtractedDocument(
        source="",
        title=_short(extracted.title) or name,
        text=extracted.text,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        mtime=0.0,
        media_type=media_type,
        parser_version=_version(loader),
        pages=extracted.pages,
        warnings=(*notes, *extracted.warnings),
    )
    return extracted, document


def _choose(name: str, data: bytes) -> tuple[str, str, tuple[str, ...]]:
    """Module, language of source code, and a warning where the name is wrong."""
    suffix = PurePosixPath(name).suffix.lower()
    chosen = BY_NAME.get(name.lower()) or BY_SUFFIX.get(suffix)
    notes: tuple[str, ...] = ()
    if chosen is None and not suffix:
        chosen = _offered(sniffing.by_content(data))
    elif other := _offered(sniffing.against_name(chosen, data)):
        chosen = other
        notes = (f"its name says {suffix}, but it is {sniffing.CALLED[other]}; read as that",)
    if chosen is None:
        raise _unsupported(suffix)
    module, _, language = chosen.partition(":")
    return module, language, notes


def _offered(loader: str | None) -> str | None:
    return loader if loader in BY_SUFFIX.values() else None


def _module(name: str) -> Loader:
    return cast("Loader", importlib.import_module(f"glm_rag_ingest.loaders.{name}"))


def _version(loader: Loader) -> str:
    return f"{loader.VERSION}.{_VERSION}"


def _unsupported(suffix: str) -> DocumentError:
    kind = f"{suffix.lower()} files" if suffix else "binary files without an extension"
    return failure("unsupported", f"{kind} are not read; save it as text, PDF, Word or HTML")


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
