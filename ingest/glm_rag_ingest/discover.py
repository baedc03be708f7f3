"""Which files a run is about."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_from_bytes

from glm_rag.settings import expand_user
from glm_rag.types import IngestFailure
from glm_rag_ingest.selection import Selection

# Inside folders these are left out; a path named on the command line is always taken.
_JUNK_FOLDERS = frozenset({"__pycache__", "__macosx", "node_modules", "lost+found"})
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


def discover(paths: Iterable[Path], selection: Selection | None = None) -> Discovery:
    """Find files below `paths`, sorted by path, each once.

    Folders are walked with their subfolders, also through symbolic links. Hidden files, lock
    files of Office, and folders of tools (`.git`, `__pycache__`, `node_modules`) are left out, and
    what `selection` does not take. A named path that does not exist, and what may not be read,
    become failures.
    """
    selection = selection or Selection()
    found = Discovery()
    by_source: dict[str, FoundFile] = {}
    for named in paths:
        path = expand_user(named)
        if not os.path.lexists(path):
            found.missing.append(path)
            found.failures.append(_failure(path, "no such file or folder"))
            continue
        real = os.path.realpath(path)  # resolve() raises on a circle of links
        found.roots.append(Path(real))
        if path.is_dir():
            files = _walk(real, selection, found)
        elif selection.takes(path.name):
            files = _named(path, found)
        else:
            files = iter(())
        for file in files:
            by_source.setdefault(file.source, file)
    found.files = sorted(by_source.values(), key=lambda file: file.path.parts)
    return found


def keep_inside(found: Discovery, folders: Iterable[Path]) -> None:
    """Turn files that do not really lie in one of `folders` into failures."""
    allowed = [Path(os.path.realpath(folder)) for folder in folders]
    files, found.files = found.files, []
    for file in files:
        if any(Path(os.path.realpath(file.path)).is_relative_to(folder) for folder in allowed):
            found.files.append(file)
        else:
            found.failures.append(_failure(file.path, "outside the folders that may be read"))


def _walk(root: str, selection: Selection, found: Discovery) -> Iterator[FoundFile]:
    """Every file below a folder; a folder that links lead back to is walked once."""
    seen: set[str] = set()
    waiting = [(root, "")]  # a folder's real path, and its path relative to the root, ending in /
    while waiting:
        folder, inside = waiting.pop()
        if folder in seen:
            continue
        seen.add(folder)
        try:
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError as error:
            found.failures.append(_failure(Path(folder), _reason(error)))
            continue
        prefix = f"file://{_quoted(folder).rstrip('/')}/"
        for entry in entries:
            relative = inside + entry.name
            if _is_folder(entry):
                relative += "/"
                if not _is_junk(entry.name, _JUNK_FOLDERS) and not selection.refuses(relative):
                    waiting.append((_real(entry), relative))
            elif not _is_junk(entry.name, _JUNK_FILES) and selection.takes(relative):
                yield from _entry(entry, prefix, found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _real(entry: os.DirEntry[str]) -> str:
    return os.path.realpath(entry.path) if entry.is_symlink() else entry.path


def _entry(entry: os.DirEntry[str], prefix: str, found: Discovery) -> Iterator[FoundFile]:
    """A file inside a real folder. Sockets and pipes there are nobody's documents."""
    if entry.is_symlink():
        yield from _named(Path(entry.path), found, inside_folder=True)
        return
    try:
        status = entry.stat()
    except FileNotFoundError:  # gone since the folder was listed
        return
    except OSError as error:
        found.failures.append(_failure(Path(entry.path), _reason(error)))
        return
    if stat.S_ISREG(status.st_mode):
        source = prefix + _quoted(entry.name)
        yield FoundFile(Path(entry.path), source, status.st_size, status.st_mtime)


def _named(path: Path, found: Discovery, *, inside_folder: bool = False) -> Iterator[FoundFile]:
    try:
        status = path.stat()
    except FileNotFoundError:
        if os.path.lexists(path):
            found.failures.append(_failure(path, "a symbolic link to a file that is not there"))
    except OSError as error:
        found.failures.append(_failure(path, _reason(error)))
    else:
        if stat.S_ISREG(status.st_mode):
            real = path.resolve()
            yield FoundFile(real, real.as_uri(), status.st_size, status.st_mtime)
        elif not inside_folder:
            found.failures.append(_failure(path, "neither a file nor a folder"))


def _quoted(path: str) -> str:
    """As `Path.as_uri()` does it."""
    return quote_from_bytes(os.fsencode(path))


def _is_junk(name: str, names: frozenset[str]) -> bool:
    return name.startswith(_JUNK_PREFIXES) or name.lower() in names


def _reason(error: OSError) -> str:
    return (error.strerror or "unreadable").lower()


def _failure(path: Path, reason: str) -> IngestFailure:
    source = Path(os.path.abspath(path)).as_uri()  # noqa: PTH100 - resolve() would follow links
    return IngestFailure(source, "discover", f"unreadable: {reason}", permanent=False)
