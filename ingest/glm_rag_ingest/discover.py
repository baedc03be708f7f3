"""Which files a run is about."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from glm_rag.config import expand_user
from glm_rag.types import IngestFailure

# Inside folders these are left out; a path named on the command line is always taken.
_JUNK_FOLDERS = frozenset({"__pycache__", "__MACOSX", "node_modules", "lost+found"})
_JUNK_FILES = frozenset({"thumbs.db", "desktop.ini"})
_JUNK_PREFIXES = (".", "~$", "._")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to ingest. `mtime` in seconds since the epoch."""

    path: Path
    source: str
    size: int
    mtime: float


@dataclass(slots=True)
class Discovery:
    """Files in order, what could not be looked at, and the resolved paths that were named."""

    files: list[FoundFile] = field(default_factory=list)
    failures: list[IngestFailure] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)


def discover(paths: Iterable[Path]) -> Discovery:
    """Find files below `paths`, sorted by path, each once.

    Folders are walked with their subfolders, also through symbolic links. Hidden files, lock
    files of Office, and folders of tools (`.git`, `__pycache__`, `node_modules`) are left out.
    A named path that does not exist, and what may not be read, become failures.
    """
    found = Discovery()
    by_source: dict[str, FoundFile] = {}
    for named in paths:
        path = expand_user(named)
        if not os.path.lexists(path):
            found.missing.append(path)
            found.failures.append(_failure(path, "no such file or folder"))
            continue
        found.roots.append(Path(os.path.realpath(path)))  # resolve() raises on a circle of links
        for file in _walk(path, found) if path.is_dir() else _one(path, found):
            by_source.setdefault(file.source, file)
    found.files = sorted(by_source.values(), key=lambda file: file.path.parts)
    return found


def _walk(root: Path, found: Discovery) -> Iterator[FoundFile]:
    seen: set[Path] = set()

    def unreadable(error: OSError) -> None:
        folder = Path(os.fsdecode(error.filename))
        found.failures.append(_failure(folder, (error.strerror or "unreadable").lower()))

    for folder, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:  # a link back to where we have been
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _is_junk(name, _JUNK_FOLDERS))
        for name in names:
            if not _is_junk(name, _JUNK_FILES):
                yield from _one(Path(folder) / name, found, inside_folder=True)


def _one(path: Path, found: Discovery, *, inside_folder: bool = False) -> Iterator[FoundFile]:
    try:
        status = path.stat()
    except FileNotFoundError:
        if os.path.lexists(path):
            found.failures.append(_failure(path, "a symbolic link to a file that is not there"))
    except OSError as error:
        found.failures.append(_failure(path, (error.strerror or "unreadable").lower()))
    else:
        if stat.S_ISREG(status.st_mode):
            real = path.resolve()
            yield FoundFile(real, real.as_uri(), status.st_size, status.st_mtime)
        elif not inside_folder:  # sockets and pipes inside folders are nobody's documents
            found.failures.append(_failure(path, "neither a file nor a folder"))


def _is_junk(name: str, names: frozenset[str]) -> bool:
    return name.startswith(_JUNK_PREFIXES) or name in names or name.lower() in names


def _failure(path: Path, reason: str) -> IngestFailure:
    source = Path(os.path.abspath(path)).as_uri()  # noqa: PTH100 - resolve() would follow links
    return IngestFailure(source, "discover", f"unreadable: {reason}", permanent=False)
