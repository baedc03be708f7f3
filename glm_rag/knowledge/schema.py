"""The tables, and how an older file becomes one of this version."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from glm_rag import sqlite_file

# One script per schema version; `PRAGMA user_version` counts those that ran. Never edit one that
# was released: append.
#
# `chunks.id` is AUTOINCREMENT, so an id is never given twice and FAISS may keep it. `terms` holds
# the compressed search terms: the contentless full-text table can only forget what it is told
# again. The `ascii` tokenizer takes every non-ASCII character for a letter, so the segmentation
# stays ours.
MIGRATIONS: tuple[str, ...] = (
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

SCHEMA_VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Run the scripts that did not run yet, all in one transaction."""
    sqlite_file.migrate(connection, MIGRATIONS)


def has_schema(connection: sqlite3.Connection, version: int) -> bool:
    """Whether a file holds the tables, indexes and triggers of a version, and no others."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        for script in MIGRATIONS[:version]:
            fresh.executescript(script)
        return _schema(connection) == _schema(fresh)


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str, str | None]]:
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    # SQLite makes the tables behind the full-text one itself, each version in its own words.
    return {
        (kind, name, None if kind == "table" and name.startswith("chunk_terms_") else sql)
        for kind, name, sql in rows
    }
