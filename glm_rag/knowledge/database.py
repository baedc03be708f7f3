"""The SQLite file that is the truth: connection, transactions, errors.

WAL lets readers go on while one writes. `synchronous=FULL`: a commit is on the disk before the
caller hears of it; with one transaction per file that is one fsync per file, and neither kill -9
nor a power cut loses a file that was reported as ingested.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glm_rag import sqlite_file
from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge.schema import SCHEMA_VERSION, migrate
from glm_rag.sqlite_file import code_of, connect, identity, uri_of, use_wal

FILE_NAME = "library.sqlite"


class Database:
    """One connection behind a lock, so that any thread may use it.

    Args:
        folder: of the knowledge base; made if it is missing and `create` is true.
        create: make the file if it is missing.

    Raises:
        KnowledgeBaseError: no permission, damaged file, newer schema, locked for too long.
    """

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.folder = folder = folder.absolute()
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
            self._seen = _stamp(self.path)
            self._connection = _connect_read_only(self.path) if self.read_only else self._connect()
            self._identity = identity(self.path)
            self._check_version()

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
            self._follow_writers()
            try:
                self._connection.execute("BEGIN")
                yield self._connection
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def write(self, *, changes_chunks: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is kept, or nothing.

        Args:
            changes_chunks: count the change, so that every index catches up.

        Raises:
            KnowledgeBaseError: no permission, disk full, locked for too long; somebody has deleted
                or renamed the knowledge base.
        """
        if self.read_only:
            raise KnowledgeBaseError(
                f"no permission to write into {self.folder}: change its owner or mode, "
                "or choose another data folder with GLM_RAG_HOME"
            )
        with self.lock, self._translated():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._check_place()
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
            self._follow_writers()
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
                is_ours = code_of(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_BUSY}
                where = self.path if is_ours else path
                raise KnowledgeBaseError(explain(error, where)) from error

    def change(self) -> int:
        """How many transactions have changed chunks; the same number means the same chunks.

        Raises:
            KnowledgeBaseError: it is damaged.
        """
        value = self.value("SELECT value FROM meta WHERE key = 'change'")
        if not str(value).isdecimal():
            raise KnowledgeBaseError(
                f"{self.path} is damaged (no counter of changes): glm-rag kb rebuild "
                f"{self.folder.name}"
            )
        return int(value)

    def get_meta(self, key: str) -> str | None:
        """A remembered fact."""
        found = self.value("SELECT value FROM meta WHERE key = ?", (key,))
        return None if found is None else str(found)

    def _connect(self) -> sqlite3.Connection:
        connection = connect(f"{uri_of(self.path)}?mode=rwc")
        try:
            use_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _follow_writers(self) -> None:
        """Where we may not write, SQLite was told that nobody writes, and does not look again."""
        if not self.read_only or self._connection.in_transaction:
            return
        now = _stamp(self.path)
        if now != self._seen:
            self._connection.close()
            self._connection, self._seen = _connect_read_only(self.path), now

    def _check_place(self) -> None:
        """A file without a name takes every write and keeps none."""
        if identity(self.path) != self._identity:
            raise KnowledgeBaseError(
                f"{self.folder} was deleted, renamed or replaced since it was opened: open the "
                "knowledge base again"
            )

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
    mend = (
        f"restore it from a backup, or run glm-rag kb delete {path.parent.name} and ingest the "
        "files again"
    )
    return sqlite_file.explain(error, path, if_damaged=mend)


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """Open without writing anything beside the file.

    SQLite cannot read a WAL file in a folder where it may not make the shared-memory file,
    unless it is told that nobody writes; an absent log says so.
    """
    log = path.with_name(path.name + "-wal")
    nobody_writes = not log.exists() or log.stat().st_size == 0
    return connect(f"{uri_of(path)}?mode=ro{'&immutable=1' if nobody_writes else ''}")


def _is_writable(folder: Path, file: Path) -> bool:
    return os.access(folder, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))


def _stamp(path: Path) -> list[tuple[int, ...] | None]:
    """Changes whenever somebody has written to the file or its log."""
    found: list[tuple[int, ...] | None] = []
    for file in (path, path.with_name(path.name + "-wal")):
        try:
            status = file.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found
