"""The SQLite file that is the truth: schema, connection, transactions, errors.

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

FILE_NAME = "library.sqlite"
_BUSY_SECONDS = 30.0
_RETRY_SECONDS = 0.05

# One script per schema version; `PRAGMA user_version` counts those that ran. Never edit one that
# was released: append.
#
# `chunks.id` is AUTOINCREMENT, so an id is never given twice and FAISS may keep it. `terms` holds
# the compressed search terms: the contentless full-text table can only forget what it is told
# again. The `ascii` tokenizer takes every non-ASCII character for a letter, so the segmentation
# stays ours.
_MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE documents (
        id INTEGER PRIMARY KEY,
        source TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        language TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        size INTEGER NOT NULL,
        mtime REAL NOT NULL,
        media_type TEXT NOT NULL,
        parser_version TEXT NOT NULL,
        pages TEXT NOT NULL,
        warnings TEXT NOT NULL,
        added_at REAL NOT NULL,
        num_characters INTEGER NOT NULL,
        text TEXT NOT NULL
    );
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
        chunk_index INTEGER NOT NULL,
        start_offset INTEGER NOT NULL,
        end_offset INTEGER NOT NULL,
        page INTEGER,
        language TEXT NOT NULL,
        num_terms INTEGER NOT NULL,
        content_hash TEXT NOT NULL,
        headings TEXT NOT NULL,
        extra TEXT,
        terms BLOB NOT NULL,
        text TEXT NOT NULL
    );
    CREATE INDEX chunks_of_document ON chunks (document_id, chunk_index);
    CREATE INDEX chunk_totals ON chunks (language, num_terms);
    CREATE TABLE vectors (
        id INTEGER PRIMARY KEY REFERENCES chunks (id) ON DELETE CASCADE,
        vector BLOB NOT NULL
    );
    CREATE VIRTUAL TABLE chunk_terms USING fts5 (
        terms, content = '', tokenize = "ascii tokenchars ''''"
    );
    CREATE VIRTUAL TABLE term_statistics USING fts5vocab (chunk_terms, row);
    CREATE TABLE failures (
        source TEXT PRIMARY KEY,
        stage TEXT NOT NULL,
        error TEXT NOT NULL,
        permanent INTEGER NOT NULL,
        failed_at REAL NOT NULL,
        fingerprint TEXT NOT NULL
    );
    CREATE TABLE snapshots (
        generation INTEGER PRIMARY KEY AUTOINCREMENT,
        sha256 TEXT NOT NULL,
        last_id INTEGER NOT NULL,
        num_vectors INTEGER NOT NULL
    );
    INSERT INTO meta VALUES ('change', '0');
    """,
    # Documents inside documents (archives, mails) and several files with the same bytes; where a
    # chunk's section is; vectors found again by what was embedded; a log of deletions, so that an
    # index follows without reading every id; totals, so that a question reads two rows.
    """
    ALTER TABLE documents ADD COLUMN container TEXT;
    CREATE INDEX documents_in_container ON documents (container) WHERE container IS NOT NULL;
    CREATE INDEX documents_by_content ON documents (sha256);
    CREATE TABLE copies (
        source TEXT PRIMARY KEY,
        document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
        size INTEGER NOT NULL,
        mtime REAL NOT NULL,
        added_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX copies_of_document ON copies (document_id);
    ALTER TABLE chunks ADD COLUMN table_header TEXT NOT NULL DEFAULT '';
    ALTER TABLE chunks ADD COLUMN section_start INTEGER;
    ALTER TABLE chunks ADD COLUMN section_end INTEGER;
    ALTER TABLE chunks ADD COLUMN embedding_hash BLOB;
    CREATE INDEX chunks_by_embedding ON chunks (embedding_hash);
    CREATE TABLE pending_vectors (
        embedding_hash BLOB PRIMARY KEY,
        vector BLOB NOT NULL,
        added_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE deletions (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        chunk_id INTEGER NOT NULL
    );
    CREATE TABLE totals (
        language TEXT PRIMARY KEY,
        num_chunks INTEGER NOT NULL,
        num_terms INTEGER NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO totals SELECT language, count(*), sum(num_terms) FROM chunks GROUP BY language;
    DROP INDEX chunk_totals;
    CREATE INDEX chunks_of_language ON chunks (language);
    CREATE INDEX chunks_with_extra ON chunks (document_id) WHERE extra IS NOT NULL;
    CREATE TRIGGER chunk_added AFTER INSERT ON chunks BEGIN
        INSERT INTO totals VALUES (new.language, 1, new.num_terms) ON CONFLICT (language)
        DO UPDATE SET num_chunks = num_chunks + 1, num_terms = num_terms + excluded.num_terms;
    END;
    CREATE TRIGGER chunk_deleted AFTER DELETE ON chunks BEGIN
        INSERT INTO deletions (chunk_id) VALUES (old.id);
        UPDATE totals SET num_chunks = num_chunks - 1, num_terms = num_terms - old.num_terms
        WHERE language = old.language;
    END;
    DROP TABLE snapshots;
    CREATE TABLE snapshots (
        generation INTEGER PRIMARY KEY AUTOINCREMENT,
        language TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        num_bytes INTEGER NOT NULL,
        num_vectors INTEGER NOT NULL,
        last_id INTEGER NOT NULL,
        last_deletion INTEGER NOT NULL,
        num_trained INTEGER NOT NULL
    );
    """,
)


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

    def change(self) -> int:
        """How many transactions have changed chunks; the same number means the same chunks."""
        return int(self.value("SELECT value FROM meta WHERE key = 'change'"))

    def get_meta(self, key: str) -> str | None:
        """A remembered fact."""
        found = self.value("SELECT value FROM meta WHERE key = ?", (key,))
        return None if found is None else str(found)

    def _connect(self) -> sqlite3.Connection:
        connection = _open(f"file:{_quoted(self.path)}?mode=rwc")
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            _migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_version(self) -> None:
        version = self.value("PRAGMA user_version")
        if version == len(_MIGRATIONS):
            return
        self._connection.close()
        known = f"version {len(_MIGRATIONS)}"
        if version > len(_MIGRATIONS):
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
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
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
    return _open(f"file:{_quoted(path)}?mode=ro{'&immutable=1' if nobody_writes else ''}")


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
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _migrate(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version >= len(_MIGRATIONS):
        return
    connection.execute("BEGIN EXCLUSIVE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for number in range(version, len(_MIGRATIONS)):
        for statement in _statements(_MIGRATIONS[number]):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number + 1}")
    connection.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """`executescript` would commit in between."""
    statement = ""
    for line in script.splitlines():
        statement += f"{line}\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _is_writable(folder: Path, file: Path) -> bool:
    return os.access(folder, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
