"""Names of knowledge bases and the folders behind them."""

from __future__ import annotations

import re
import shutil
import unicodedata
from pathlib import Path

from glm_rag.errors import ConfigError, KnowledgeBaseError, KnowledgeBaseNotFoundError
from glm_rag.knowledge import lock
from glm_rag.knowledge.database import FILE_NAME

# Letters and digits of any script, inside also space . _ -
_NAME = re.compile(r"[^\W_](?:[\w .-]{0,62}[\w-])?")
# Most file systems allow 255 bytes in a name.
_MAX_BYTES = 200


def folder_of(name: str, home: Path) -> Path:
    """The folder of a knowledge base, whether it exists or not.

    Raises:
        ConfigError: the name could leave the data folder or not be a file name.
    """
    normal = unicodedata.normalize("NFC", name)
    if not _NAME.fullmatch(normal) or len(normal.encode()) > _MAX_BYTES:
        raise ConfigError(
            f"{name!r} cannot name a knowledge base: use up to 64 letters (of any script), "
            "digits, spaces, dots, - and _, beginning with a letter or digit"
        )
    return home / "kb" / normal


def list_knowledge_bases(home: Path) -> list[str]:
    """Names of the knowledge bases in a data folder, sorted."""
    try:
        folders = [path for path in (home / "kb").iterdir() if not path.name.startswith(".")]
        return sorted(folder.name for folder in folders if _may_be_one(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise KnowledgeBaseError(f"no permission to read {home / 'kb'}") from error


def delete_knowledge_base(name: str, home: Path) -> None:
    """Delete a knowledge base with everything in it; the documents' files stay.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name.
        KnowledgeBaseError: somebody is ingesting, or no permission.
    """
    folder = existing_folder(name, home)
    with lock.writing(folder, name):
        try:
            # Without this file it is no knowledge base any more, even if the rest takes time.
            (folder / FILE_NAME).unlink()
            shutil.rmtree(folder)
        except OSError as error:
            raise KnowledgeBaseError(f"cannot delete {folder}: {error.strerror}") from error


def _may_be_one(folder: Path) -> bool:
    """Also where that may not be looked at: opening it tells why."""
    try:
        return (folder / FILE_NAME).is_file()
    except PermissionError:
        return True


def existing_folder(name: str, home: Path) -> Path:
    """The folder of a knowledge base that exists.

    Raises:
        ConfigError: not a name. KnowledgeBaseNotFoundError: there is none of that name.
    """
    folder = folder_of(name, home)
    if _may_be_one(folder):
        return folder
    known = ", ".join(list_knowledge_bases(home))
    there_are = f"there are: {known}" if known else "there are none yet"
    raise KnowledgeBaseNotFoundError(
        f"no knowledge base {name!r} ({there_are}): run glm-rag ingest PATH --kb {name}"
    )


def free_folder(name: str, home: Path) -> Path:
    """The folder of a knowledge base that is still to be made.

    Raises:
        ConfigError: not a name. KnowledgeBaseError: there is one of that name.
    """
    folder = folder_of(name, home)
    if folder.exists():
        raise KnowledgeBaseError(
            f"there is a knowledge base {name!r} already: choose another name, or delete it first "
            f"with glm-rag kb delete {name}"
        )
    return folder


def folder_size(folder: Path) -> int:
    """Bytes of everything in a folder, but for what somebody removes meanwhile."""
    return sum(map(_file_size, folder.rglob("*")))


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
