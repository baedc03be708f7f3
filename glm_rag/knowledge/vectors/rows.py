"""What the index reads of the database. Every function works inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from glm_rag.errors import KnowledgeBaseError

BATCH = 10_000


def dimension(connection: sqlite3.Connection) -> int:
    """Length of the vectors, 0 while there are none."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'dimension'").fetchone()
    if row is not None and not str(row[0]).isdecimal():
        path = _path(connection)
        raise KnowledgeBaseError(
            f"{path} is damaged (no length of the vectors): glm-rag kb rebuild "
            f"{path.parent.name} --embed"
        )
    return int(row[0]) if row else 0


def language_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Chunks of each language that has any."""
    rows = connection.execute("SELECT language, num_chunks FROM totals WHERE num_chunks > 0")
    return dict(rows.fetchall())


def last_number(connection: sqlite3.Connection, table: str) -> int:
    """The highest number that an AUTOINCREMENT table has given to a committed row, ever."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return row[0] if row else 0


def first_deletion(connection: sqlite3.Connection) -> int:
    """The lowest number that is still in the log of deletions, or will be."""
    (number,) = connection.execute("SELECT min(number) FROM deletions").fetchone()
    return int(number) if number else last_number(connection, "deletions") + 1


def deleted_ids(connection: sqlite3.Connection, after: int) -> np.ndarray:
    """Ids of the deletions with a number above `after`."""
    rows = connection.execute("SELECT chunk_id FROM deletions WHERE number > ?", (after,))
    return np.fromiter((row[0] for row in rows), dtype=np.int64)


def count_newer(connection: sqlite3.Connection, language: str, after: int) -> int:
    """Chunks of a language with an id above `after`."""
    (count,) = connection.execute(
        "SELECT count(*) FROM chunks WHERE language = ? AND id > ?", (language, after)
    ).fetchone()
    return int(count)


def ids_of(connection: sqlite3.Connection, language: str) -> np.ndarray:
    """Sorted ids of a language's chunks."""
    rows = connection.execute("SELECT id FROM chunks WHERE language = ? ORDER BY id", (language,))
    return np.fromiter((row[0] for row in rows), dtype=np.int64)


def newer_vectors(
    connection: sqlite3.Connection, language: str, after: int, dimension: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of ids above `after`, ascending, with vectors `[N, dimension]` of a language."""
    cursor = connection.execute(
        "SELECT v.id, v.vector FROM chunks AS c JOIN vectors AS v ON v.id = c.id "
        "WHERE c.language = ? AND c.id > ? ORDER BY c.id",
        (language, after),
    )
    return _batches(connection, cursor, dimension)


def all_newer_vectors(
    connection: sqlite3.Connection, after: int, dimension: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of languages, ids above `after`, ascending, and vectors."""
    cursor = connection.execute(
        "SELECT v.id, v.vector, c.language FROM vectors AS v JOIN chunks AS c ON c.id = v.id "
        "WHERE v.id > ? ORDER BY v.id",
        (after,),
    )
    while rows := cursor.fetchmany(BATCH):
        ids, vectors = _arrays(connection, rows, dimension)
        yield np.array([row[2] for row in rows]), ids, vectors


def vectors_of(
    connection: sqlite3.Connection,
    ids: Sequence[int],
    dimension: int,
    language: str | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of those of the ids that exist, in the language if one is given, with vectors."""
    for start in range(0, len(ids), BATCH):
        batch = [int(i) for i in ids[start : start + BATCH]]
        marks = ", ".join("?" * len(batch))
        query = f"SELECT v.id, v.vector FROM vectors AS v WHERE v.id IN ({marks})"
        if language is not None:
            query += " AND (SELECT language FROM chunks WHERE id = v.id) = ?"
            cursor = connection.execute(query, (*batch, language))
        else:
            cursor = connection.execute(query, batch)
        yield from _batches(connection, cursor, dimension)


def _batches(
    connection: sqlite3.Connection, cursor: sqlite3.Cursor, dimension: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while rows := cursor.fetchmany(BATCH):
        yield _arrays(connection, rows, dimension)


def _arrays(
    connection: sqlite3.Connection, rows: Sequence[tuple[int, bytes]], dimension: int
) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array([row[0] for row in rows], dtype=np.int64)
    data = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
    if data.size != len(ids) * dimension:
        raise KnowledgeBaseError(
            f"{_path(connection)} is damaged (vectors of unequal length): restore it from a "
            "backup, or delete the knowledge base and ingest the files again"
        )
    vectors = data.reshape(len(ids), dimension)
    return ids, np.ascontiguousarray(vectors, dtype=np.float32)


def _path(connection: sqlite3.Connection) -> Path:
    return Path(connection.execute("PRAGMA database_list").fetchone()[2])
