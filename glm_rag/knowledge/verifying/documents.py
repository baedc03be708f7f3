"""The file itself, what it says of its vectors, and the documents."""

from __future__ import annotations

import json
import sqlite3

from glm_rag.knowledge.verifying.mends import Findings, Mends
from glm_rag.types import VerifyFinding

# SQLite keeps a value of any kind in any column.
_WRONG_KINDS = """
    SELECT source FROM documents WHERE typeof(size) <> 'integer' OR typeof(mtime) <> 'real'
    OR typeof(added_at) <> 'real' OR typeof(text) <> 'text'
    UNION ALL
    SELECT source FROM copies WHERE typeof(size) <> 'integer' OR typeof(mtime) <> 'real'
    OR typeof(added_at) <> 'real'
"""
# Also those that hold each other.
_IN_NO_FILE = """
    WITH RECURSIVE held (source) AS (
        SELECT source FROM documents WHERE container IS NULL
        UNION SELECT d.source FROM documents AS d JOIN held AS h ON d.container = h.source
    )
    SELECT source FROM documents WHERE source NOT IN (SELECT source FROM held)
"""


def check_file(connection: sqlite3.Connection, mends: Mends) -> Findings:
    """Pages of the file, and rows that point to none."""
    for (line,) in connection.execute("PRAGMA integrity_check (100)"):
        if line != "ok":
            problem = " ".join(str(line).split())
            yield VerifyFinding("database", "", problem, mends.restore)
    for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        problem = f"row {row_id} of {table} belongs to no row of {parent}"
        yield VerifyFinding("database", "", problem, mends.rebuild)


def check_meta(connection: sqlite3.Connection, mends: Mends) -> Findings:
    """The counter of changes, and which embedder made the vectors."""
    known = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if not str(known.get("change")).isdecimal():
        yield VerifyFinding("meta", "", "the counter of changes is lost", mends.rebuild)
    has_chunks = connection.execute("SELECT 1 FROM chunks LIMIT 1").fetchone() is not None
    if has_chunks and not ("embeddings" in known and str(known.get("dimension")).isdecimal()):
        problem = "which embedder made the vectors, and of what length, is lost"
        yield VerifyFinding("meta", "", problem, mends.embed)


def check_documents(connection: sqlite3.Connection, mends: Mends) -> Findings:
    """Kinds, lengths and pages of the documents, and which file holds which."""
    for (source,) in connection.execute(_WRONG_KINDS).fetchall():
        problem = "its size, times or text are of another kind than they should be"
        yield VerifyFinding("document", source, problem, mends.ingest(source))
    for source, characters, pages, warnings, text in connection.execute(
        "SELECT source, num_characters, pages, warnings, text FROM documents ORDER BY id"
    ):
        if not _are_texts(warnings):
            problem = "its warnings cannot be read"
            yield VerifyFinding("document", source, problem, mends.ingest(source))
        if len(text) != characters:
            problem = f"its text has {len(text)} characters and should have {characters}"
            yield VerifyFinding("document", source, problem, mends.ingest(source))
        if not pages_fit(pages, len(text)):
            problem = "its pages do not lie in its text"
            yield VerifyFinding("document", source, problem, mends.ingest(source))
    for (source,) in connection.execute(_IN_NO_FILE).fetchall():
        problem = "the file that holds it is not in the knowledge base"
        yield VerifyFinding("document", source, problem, mends.ingest(source))
    for (source,) in connection.execute(
        "SELECT c.source FROM copies AS c JOIN documents AS d ON d.source = c.source"
    ):
        problem = "it is both a document and a copy of another"
        yield VerifyFinding("document", source, problem, mends.ingest(source))


def pages_fit(pages: str, length: int) -> bool:
    """Whether stored pages lie in a text of so many characters."""
    try:
        return all(
            isinstance(number, int) and 0 <= start <= end <= length
            for number, start, end in json.loads(pages)
        )
    except (ValueError, TypeError):
        return False


def _are_texts(stored: str) -> bool:
    try:
        return all(isinstance(text, str) for text in json.loads(stored))
    except (ValueError, TypeError):
        return False
