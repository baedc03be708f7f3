"""A knowledge base as one file, and under another name.

An export is a plain SQLite file without what can be derived, sealed with a checksum over every
row. Import takes it for data: a file with any other table, view or trigger than ours is refused,
so nothing in it is executed, and nothing in it names a place to write to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from glm_rag._version import __version__
from glm_rag.conversations import CONVERSATIONS_FILE, ConversationStore
from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import lock
from glm_rag.knowledge.database import FILE_NAME, Database, explain
from glm_rag.knowledge.index import VectorIndex
from glm_rag.knowledge.naming import existing_folder, free_folder
from glm_rag.knowledge.schema import SCHEMA_VERSION, has_schema
from glm_rag.knowledge.uploads import hand_over, uploads_of
from glm_rag.knowledge.verifying.verify import verify
from glm_rag.sqlite_file import uri_of
from glm_rag.types import VerifyReport

_FORMAT = 1
_SEALED = ("documents", "copies", "chunks", "vectors", "failures", "meta")
UNFINISHED = ".import-"
_STALE_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Seal:
    """What an export says of itself.

    Attributes:
        format: of the seal. name: of the knowledge base. version: of glm-rag that wrote it.
        created: ISO 8601, UTC. sha256: over every row of what cannot be derived.
    """

    format: int
    name: str
    version: str
    created: str
    sha256: str


def export(name: str, home: Path, target: Path, *, force: bool = False) -> Seal:
    """Write the knowledge base into one new file, as it is at this moment, whoever writes to it.

    Args:
        target: appears when it is complete. force: overwrite it.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name.
        KnowledgeBaseError: the file exists or cannot be written.
    """
    folder = existing_folder(name, home)
    if target.exists() and not force:
        raise KnowledgeBaseError(f"{target} exists: choose another name, or overwrite with --force")
    if not target.parent.is_dir():
        raise KnowledgeBaseError(f"there is no folder {target.parent}: make it, or name another")
    if not os.access(target.parent, os.W_OK):
        raise KnowledgeBaseError(
            f"no permission to write into {target.parent}: change its mode, or name another folder"
        )
    # A short name of its own: one as long as the system allows could not be made longer.
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with closing(Database(folder)) as database:
            database.copy_to(temporary)
        seal = _seal(temporary, name)
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    except sqlite3.Error as error:
        raise KnowledgeBaseError(explain(error, target)) from error
    except OSError as error:
        raise KnowledgeBaseError(f"cannot write {target}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return seal


def import_file(
    file: Path,
    home: Path,
    *,
    name: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Make a knowledge base from an export; it appears when everything in it is found right.

    Args:
        name: default: the name it was exported under.
        on_progress: gets the number of chunks checked, and of all.

    Raises:
        ConfigError: the name cannot be a folder's name.
        KnowledgeBaseError: the name is taken; the file is missing, damaged, no export, or of a
            newer version; the data folder cannot be written.
    """
    try:
        seal = _read_seal(file)
        name = name or seal.name
        folder = free_folder(name, home)
        _sweep(folder.parent)
        temporary = folder.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
        temporary.mkdir(parents=True)
        try:
            report = _fill(temporary, file, seal, name, on_progress)
            temporary.rename(free_folder(name, home))
            _sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        place = error.filename or file
        raise KnowledgeBaseError(f"cannot import {file}: {place}: {error.strerror}") from error
    return report


def rename(old: str, new: str, home: Path) -> Path:
    """Give a knowledge base another name; the folder it has then.

    What was uploaded into it and the conversations about it stay with it.

    Raises:
        ConfigError: the new name cannot be a folder's name.
        KnowledgeBaseNotFoundError: there is none of the old name.
        KnowledgeBaseError: the new one is taken, somebody is ingesting, no permission.
    """
    folder, target = existing_folder(old, home), free_folder(new, home)
    with lock.writing(folder, old), belongings(folder.name, target.name, home):
        folder.rename(target)
        _sync(target.parent)
    return target


@contextmanager
def belongings(old: str, new: str, home: Path) -> Iterator[None]:
    """Uploads and conversations go along with a knowledge base that gets its new name inside.

    Raises:
        KnowledgeBaseError: no permission, here or inside; the uploads are where they were.
    """
    uploads = uploads_of(old, home)
    try:
        hand_over(uploads, new)
        yield
    except BaseException as error:
        with suppress(OSError):
            hand_over(uploads, old)
        if isinstance(error, OSError):
            raise KnowledgeBaseError(f"cannot rename {old!r}: {error.strerror}") from error
        raise
    conversations = home / CONVERSATIONS_FILE
    if conversations.exists():
        with closing(ConversationStore(conversations)) as store:
            store.rename_kb(old, new)


# ---------------------------------------------------------------- the sealed file


def _seal(file: Path, name: str) -> Seal:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        for table in ("snapshots", "pending_vectors", "deletions"):
            connection.execute(f"DELETE FROM {table}")
        created = datetime.now(UTC).isoformat(timespec="seconds")
        seal = Seal(_FORMAT, name, __version__, created, _digest(connection))
        values = {field: getattr(seal, field) for field in Seal.__slots__}
        connection.execute("INSERT INTO meta VALUES ('export', ?)", (json.dumps(values),))
        connection.execute("VACUUM")
    return seal


def _read_seal(file: Path) -> Seal:
    if not file.is_file():
        raise KnowledgeBaseError(f"there is no file {file}: name an export of a knowledge base")
    foreign = (
        f"{file} is no export of a knowledge base: make one with glm-rag kb export NAME {file.name}"
    )
    try:
        with closing(_open(file)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version <= SCHEMA_VERSION and not has_schema(connection, version):
                raise KnowledgeBaseError(foreign)
            row = connection.execute("SELECT value FROM meta WHERE key = 'export'").fetchone()
        if row is None:
            raise KnowledgeBaseError(foreign)
        known = json.loads(row[0])
        seal = Seal(int(known["format"]), *(str(known[name]) for name in Seal.__slots__[1:]))
    except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
        raise KnowledgeBaseError(_damaged(file) if _is_sqlite(file) else foreign) from error
    if version > SCHEMA_VERSION or seal.format > _FORMAT:
        raise KnowledgeBaseError(
            f"{file} was exported by a newer glm-rag ({seal.version}): upgrade glm-rag"
        )
    return seal


def _fill(
    folder: Path,
    file: Path,
    seal: Seal,
    name: str,
    on_progress: Callable[[int, int], None] | None,
) -> VerifyReport:
    copy = folder / FILE_NAME
    shutil.copyfile(file, copy)
    _sync(copy)
    damaged = _damaged(file)
    try:
        with closing(_open(copy)) as connection:
            if _digest(connection) != seal.sha256:
                raise KnowledgeBaseError(damaged)
    except sqlite3.Error as error:
        raise KnowledgeBaseError(damaged) from error
    with closing(Database(folder)) as database:
        with database.write(changes_chunks=False) as connection:
            connection.execute("DELETE FROM meta WHERE key = 'export'")
        report = verify(name, folder, on_progress)
        if report.num_findings:
            raise KnowledgeBaseError(f"{damaged} ({report.findings[0].problem})")
        VectorIndex(database).rebuild()
    return report


def _damaged(file: Path) -> str:
    return f"{file} is damaged or cut off: copy it again, or export the knowledge base again"


def _is_sqlite(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(16) == b"SQLite format 3\0"


def _digest(connection: sqlite3.Connection) -> str:
    """SHA-256 over every value of every row that cannot be derived, with its type and length."""
    digest = hashlib.sha256()
    for table in _SEALED:
        digest.update(f"{table}\n".encode())
        where = "WHERE key <> 'export'" if table == "meta" else ""  # the seal is no part of it
        for row in connection.execute(f"SELECT * FROM {table} {where} ORDER BY 1"):
            for value in row:
                data = value if isinstance(value, bytes) else str(value).encode()
                digest.update(f"{type(value).__name__} {len(data)} ".encode())
                digest.update(data)
    return digest.hexdigest()


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{uri_of(file)}?mode=ro&immutable=1", uri=True)


def _sweep(folder: Path) -> None:
    """Remove what killed imports have left."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
