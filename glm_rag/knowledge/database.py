"""The SQLite file that is the truth: connection, transactions, errors.

WAL lets readers go on while one writes. `synchronous=FULL`: a commit is on the disk before the
caller hears of it; with one transaction per file that is one fsync per file, and neither kill -9
nor a power cut loses a file that was reported as ingested.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge.schema import SCHEMA_VERSION, migrate

FILE_NAME = "library.sqlite"
_BUSY_SECONDS = 30.0
_RETRY_SECONDS = 0.05


class Database:
    """One connection behind a lock, so that any thread may use it.

    Args:
        folder: of the knowledge base; made if it is missing and `create` is true.
        create: make the file if it is missing.

    Raises:
        KnowledgeBaseError: no permission, damaged file, newer schema, locked for too long.
    """

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.folder = folder
        self.path = folder / FILE_NAME
        self.lock = threading.RLock()
        with self._translated():
            if create:
                folder.mkdir(parents=True, exist_ok=True)
            elif self.path.stat().st_size == 0:
                # SQLite would take it for a new database and hide that everything is gone.
                raise KnowledgeBaseError(
                    f"{self.path} is empty: restore it from a backup, or ingest the files again"
                )
            self.read_only = not _is_writable(folder, self.path)
            self._connection = _connect_read_only(self.path) if self.read_only else self._connect()
            self._check_version()
            self._file = _identity(self.path)

    def close(self) -> None:
        """Close the connection; the write-ahead log is folded into the file."""
        with self.lock, self._translated():
            self._connection.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A consistent view: everything read inside belongs to one moment."""
        with self.lock, self._translated():
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def write(self, *, changes_chunks: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is kept, or nothing.

        Args:
            changes_chunks: count the change, so that every index catches up.
        """
        if self.read_only:
            raise KnowledgeBaseError(
                f"no permission to write into {self.folder}: change its owner or mode, "
                "or choose another data folder with GLM_RAG_HOME"
            )
        with self.lock, self._translated():
            self._check_place()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                if changes_chunks:
                    self._connection.execute(
                        "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'change'"
                    )
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one query."""
        with self.lock, self._translated():
            return self._connection.execute(statement, parameters).fetchall()

    def value(self, statement: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row, None without one."""
        found = self.rows(statement, parameters)
        return found[0][0] if found else None

    def copy_to(self, path: Path) -> None:
        """Write a compact copy of this moment into a new file, while others write.

        Raises:
            KnowledgeBaseError: `path` exists or cannot be written.
        """
        with self.lock:
            try:
                self._connection.execute("VACUUM INTO ?", (str(path),))
            except sqlite3.Error as error:
                is_ours = _code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_BUSY}
                where = self.path if is_ours else path
                raise KnowledgeBaseError(explain(error, where)) from error

    def change(self) -> int:
        """How many transactions have changed chunks; the same number means the same chunks."""
        return int(self.value("SELECT value FROM meta WHERE key = 'change'"))

    def get_meta(self, key: str) -> str | None:
        """A remembered fact."""
        found = self.value("SELECT value FROM meta WHERE key = ?", (key,))
        return None if found is None else str(found)

    def _connect(self) -> sqlite3.Connection:
        connection = _open(f"{uri_of(self.path)}?mode=rwc")
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_version(self) -> None:
        version = self.value("PRAGMA user_version")
        if version == SCHEMA_VERSION:
            return
        self._connection.close()
        known = f"version {SCHEMA_VERSION}"
        if version > SCHEMA_VERSION:
            raise KnowledgeBaseError(
                f"{self.path} was written by a newer glm-rag (schema version {version}, this one "
                f"knows {known}): upgrade glm-rag"
            )
        raise KnowledgeBaseError(
            f"{self.path} has schema version {version} and must become {known}, but may not be "
            "written: open it once with permission to write"
        )

    def _check_place(self) -> None:
        """What is written into a file that was deleted goes with the process."""
        if _identity(self.path) != self._file:
            raise KnowledgeBaseError(
                f"{self.folder} was deleted, renamed or replaced while it was open: nothing was "
                "written; open the knowledge base again"
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, sqlite3.InterfaceError) as error:
            raise KnowledgeBaseError(explain(error, self.path)) from error
        except OSError as error:
            raise KnowledgeBaseError(
                f"cannot use {self.folder}: {error.strerror}; choose another data folder with "
                "GLM_RAG_HOME"
            ) from error


def explain(error: sqlite3.Error, path: Path) -> str:
    """One line that says what is wrong with the file and what to do."""
    code = _code(error)
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return (
            f"{path} is damaged ({error}): restore it from a backup, or run "
            f"glm-rag kb delete {path.parent.name} and ingest the files again"
        )
    if _is_busy(error):
        return f"another process has been writing to {path} for a long time: try again later"
    if code == sqlite3.SQLITE_FULL:
        return f"the disk of {path} is full: free some space and run again, nothing is lost"
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return f"no permission to open {path} ({error}): change its owner or mode"
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_WRITE:
        return (
            f"cannot write more to {path}: check its disk, the quota and the limit on file sizes "
            "(ulimit -f) and run again, nothing is lost"
        )
    if code == sqlite3.SQLITE_IOERR:
        return f"the disk of {path} reports an error ({error}): check the disk and run again"
    return f"{path}: {error}"


def _open(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
    )


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """Open without writing anything beside the file.

    SQLite cannot read a WAL file in a folder where it may not make the shared-memory file,
    unless it is told that nobody writes; an absent log says so.
    """
    log = path.with_name(path.name + "-wal")
    nobody_writes = not log.exists() or log.stat().st_size == 0
    return _open(f"{uri_of(path)}?mode=ro{'&immutable=1' if nobody_writes else ''}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL. SQLite does not wait here if another process switches too."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _is_writable(folder: Path, file: Path) -> bool:
    return os.access(folder, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))


def uri_of(path: Path) -> str:
    """The file as SQLite's URI, without parameters."""
    return "file:" + str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
