"""Where the page and the server keep the files that were uploaded into a knowledge base.

Nothing here trusts a name. By default they lie in the folder of its name. Documents remember where
their file lies, so the folder stays where it is when the knowledge base gets another name; a note
in it then says whose it is.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path

from glm_rag.knowledge.naming import folder_of

_OWNER = ".knowledge-base"
_PART = ".part"
_STALE_SECONDS = 24 * 3600.0
_NAME_BYTES = 150
_FALLBACK = "document"
_UNSAFE = re.compile(r'[<>:"|?*\x00-\x1f]')


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


def distinct_names(names: Iterable[str]) -> list[str]:
    """Safe names for files that came together: those of one name get numbers, none replaces
    another."""
    counts: Counter[str] = Counter()
    found = []
    for name in map(safe_name, names):
        counts[name] += 1
        found.append(f"({counts[name]}) {name}" if counts[name] > 1 else name)
    return found


class IncomingFile:
    """A file on its way into a folder, which is made if it is missing: whole or not at all.

    Attributes:
        path: where it lies until it is kept.

    Raises:
        OSError: disk full, no permission.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        handle, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=_PART)
        self.path = Path(name)
        self._file = os.fdopen(handle, "wb")

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._file.write(data)

    def finish(self) -> None:
        """No more bytes come."""
        self._file.close()

    def keep(self, name: str) -> Path:
        """Give the file a safe name; one of that name is replaced."""
        self._file.close()
        return self.path.replace(self._folder / safe_name(name))

    def discard(self) -> None:
        """Forget it, unless it is kept already."""
        with suppress(OSError):  # a full disk says so again
            self._file.close()
        self.path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what uploads that were killed have left for a day."""
    for path in folder.glob(f".*{_PART}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def uploads_folder(name: str, home: Path) -> Path:
    """The folder for uploads into a knowledge base: its own one, or one that nobody has yet.

    Raises:
        ConfigError: the name could leave the data folder.
        OSError: it must be made anew and cannot be.
    """
    name = folder_of(name, home).name
    if owned := uploads_of(name, home):
        return owned[0]
    usual = home / "uploads" / name
    if not usual.exists():
        return usual
    # Another one, renamed since, has its files there.
    numbered = (usual.with_name(f"{name}-{number}") for number in count(2))
    free = next(path for path in numbered if not path.exists())
    free.mkdir()
    _note(free, name)
    return free


def uploads_of(name: str, home: Path) -> list[Path]:
    """The folders with uploads of a knowledge base that are there, a noted one first."""
    name = folder_of(name, home).name
    try:
        folders = sorted(path for path in (home / "uploads").iterdir() if path.is_dir())
    except OSError:
        return []
    owned = [path for path in folders if _owner(path) == name]
    return sorted(owned, key=lambda path: path.name == name)


def hand_over(folders: Iterable[Path], name: str) -> None:
    """Let folders with uploads be those of the knowledge base `name`.

    Done before the name changes, a crash in between only makes the next upload go elsewhere.

    Raises:
        OSError: no permission, disk full.
    """
    for folder in folders:
        _note(folder, name)


def _owner(folder: Path) -> str:
    try:
        return (folder / _OWNER).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return folder.name


def _note(folder: Path, name: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=_PART)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(name)
    Path(temporary).replace(folder / _OWNER)
