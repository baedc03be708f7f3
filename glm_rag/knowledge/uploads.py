"""Where the page keeps the files that were uploaded into a knowledge base.

By default in the folder of its name. Documents remember where their file lies, so the folder
stays where it is when the knowledge base gets another name; a note in it then says whose it is.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from glm_rag.knowledge.naming import folder_of

_OWNER = ".knowledge-base"


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
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(name)
    Path(temporary).replace(folder / _OWNER)
