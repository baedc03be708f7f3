"""The file of conversations: its tables, its connection, its transactions.

A commit may be lost in a power cut, but never breaks the file (`synchronous=NORMAL`): texts are
saved while they stream, and one fsync each would be felt.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glm_rag.errors import KnowledgeBaseError
from glm_rag.sqlite_file import connect, explain, identity, migrate, uri_of, use_wal

# Never edit one that was released: append.
#
# `folded` is what a search compares: case, width and Chinese variants do not matter there. An
# answer repeats all messages before it, so these are kept once per conversation, by digest.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        profile TEXT NOT NULL,
        kb TEXT NOT NULL,
        title TEXT NOT NULL DEFAULT '',
        is_renamed INTEGER NOT NULL DEFAULT 0,
        folded TEXT NOT NULL DEFAULT '',
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX conversations_of_profile ON conversations (profile, updated_at);
    CREATE TABLE turns (
        id TEXT PRIMARY KEY,
        conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        question TEXT NOT NULL,
        text TEXT NOT NULL DEFAULT '',
        folded TEXT NOT NULL,
        answer TEXT,
        messages TEXT NOT NULL DEFAULT '[]',
        status TEXT NOT NULL,
        owner TEXT NOT NULL,
        error TEXT NOT NULL DEFAULT '',
        unread INTEGER NOT NULL DEFAULT 0,
        asked_at REAL NOT NULL,
        vote TEXT,
        words TEXT NOT NULL DEFAULT '',
        UNIQUE (conversation_id, position)
    );
    CREATE INDEX turns_with_vote ON turns (asked_at) WHERE vote IS NOT NULL;
    CREATE TABLE messages (
        conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        digest TEXT NOT NULL,
        message TEXT NOT NULL,
        PRIMARY KEY (conversation_id, digest)
    );
    CREATE TABLE preferences (
        profile TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (profile, key)
    ) WITHOUT ROWID;
    """,
)
_IF_DAMAGED = (
    "move it away and start again; it holds conversations and settings of the page only, no "
    "knowledge base"
)


class ConversationFile:
    """One connection behind a lock, so that any thread may use it.

    A file that was deleted or replaced meanwhile is opened, or made, again.

    Raises:
        KnowledgeBaseError: no permission, damaged file, newer schema, locked for too long.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = threading.RLock()
        with self._lock, self._translated():
            self._connection = self._open()

    def close(self) -> None:
        """Close the connection; the write-ahead log is folded into the file."""
        with self._lock, self._translated():
            self._connection.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is kept, or nothing."""
        with self._transaction("BEGIN IMMEDIATE", "COMMIT") as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A consistent view: everything read inside belongs to one moment."""
        with self._transaction("BEGIN", "ROLLBACK") as connection:
            yield connection

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one query."""
        with self.read() as connection:
            return connection.execute(statement, parameters).fetchall()

    @contextmanager
    def _transaction(self, begin: str, end: str) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated():
            if identity(self.path) != self._identity:
                self._connection.close()
                self._connection = self._open()
            connection = self._connection
            connection.execute(begin)
            try:
                yield connection
                connection.execute(end)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Nobody else on the machine shall read what is asked; SQLite's own files get this mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = connect(f"{uri_of(self.path)}?mode=rwc")
        try:
            use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            # What is deleted shall be gone.
            connection.execute("PRAGMA secure_delete = ON")
            migrate(connection, MIGRATIONS)
            self._check_version(connection)
        except BaseException:
            connection.close()
            raise
        self._identity = identity(self.path)
        return connection

    def _check_version(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise KnowledgeBaseError(
                f"{self.path} was written by a newer glm-rag (schema version {version}, this one "
                f"knows {len(MIGRATIONS)}): upgrade glm-rag"
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, sqlite3.InterfaceError) as error:
            raise KnowledgeBaseError(explain(error, self.path, if_damaged=_IF_DAMAGED)) from error
        except OSError as error:
            raise KnowledgeBaseError(
                f"cannot use {self.path}: {error.strerror}; change its owner or mode, or choose "
                "another data folder with GLM_RAG_HOME"
            ) from error
