"""Make what is derived again: terms, keyword index and totals; on request all vectors.

All of it becomes visible in one transaction, so whoever reads sees the old state or the new one,
and a killed run leaves the old one. Vectors are computed before, into `pending_vectors`: the next
run takes them up.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence

import numpy as np

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import keywords, records
from glm_rag.knowledge.database import Database
from glm_rag.knowledge.embedder import KeepsVectors
from glm_rag.knowledge.vectors import rows
from glm_rag.types import Chunk

_BATCH = 256

# What is being done, chunks done, chunks in all.
Progress = Callable[[str, int, int], None]


def rebuild(database: Database, on_progress: Progress | None = None) -> None:
    """Make terms, keyword index and totals again."""
    with database.write() as connection:
        _derive(connection, on_progress)


def embed_again(
    database: Database, embedder: KeepsVectors, on_progress: Progress | None = None
) -> None:
    """Compute all vectors again and then do what `rebuild` does.

    Chunks get new numbers, so that every index takes them for new ones.

    Args:
        embedder: the one to use and to remember.
    """
    with database.lock:
        database.rows("DROP TABLE IF EXISTS temp.embedded")
        database.rows("CREATE TABLE temp.embedded (id INTEGER PRIMARY KEY, hash BLOB NOT NULL)")
        try:
            while not _try_to_replace(database, embedder, on_progress):
                pass  # somebody added chunks while vectors were computed
        finally:
            database.rows("DROP TABLE IF EXISTS temp.embedded")


def _try_to_replace(
    database: Database, embedder: KeepsVectors, on_progress: Progress | None
) -> bool:
    _embed(database, embedder, on_progress)
    with database.write() as connection:
        if _lacks_vectors(connection):
            return False
        _replace_vectors(connection, embedder.embeddings_name)
        _derive(connection, on_progress)
    return True


# ---------------------------------------------------------------- vectors


def _embed(database: Database, embedder: KeepsVectors, on_progress: Progress | None) -> None:
    with database.write(changes_chunks=False) as connection:
        _forget_lost(connection)
        ids = [row[0] for row in connection.execute(_NOT_EMBEDDED)]
    done = database.value("SELECT count(*) FROM temp.embedded")
    total = done + len(ids)
    for start in range(0, len(ids), _BATCH):
        rows = _rows_to_embed(database, ids[start : start + _BATCH])
        texts = [embedder.embedding_text(chunk) for _, chunk in rows]
        hashes = [records.embedding_hash(embedder.embeddings_name, text) for text in texts]
        with database.read() as connection:
            known = records.find_pending(connection, hashes)
        missing = [text for text, key in zip(texts, hashes, strict=True) if key not in known]
        if missing:
            embedder.keep_vectors(missing, embedder.embed(missing))
        for (row_id, _), key in zip(rows, hashes, strict=True):
            database.rows("INSERT INTO temp.embedded VALUES (?, ?)", (row_id, key))
        done += len(rows)
        if on_progress is not None:
            on_progress("embedding", done, total)


_NOT_EMBEDDED = "SELECT id FROM chunks WHERE id NOT IN (SELECT id FROM temp.embedded) ORDER BY id"


def _forget_lost(connection: sqlite3.Connection) -> int:
    """Embed again what somebody else has stored meanwhile: storing drops pending vectors."""
    return connection.execute(
        "DELETE FROM temp.embedded WHERE hash NOT IN (SELECT embedding_hash FROM pending_vectors)"
    ).rowcount


def _lacks_vectors(connection: sqlite3.Connection) -> bool:
    lost = _forget_lost(connection)
    return bool(lost) or connection.execute(f"{_NOT_EMBEDDED} LIMIT 1").fetchone() is not None


def _rows_to_embed(database: Database, ids: Sequence[int]) -> list[tuple[int, Chunk]]:
    """Those of the chunks that are still there."""
    with database.read() as connection:
        rows = connection.execute(
            "SELECT id, text, headings, table_header FROM chunks "
            f"WHERE id IN ({records.marks(ids)}) ORDER BY id",
            ids,
        ).fetchall()
    return [(row_id, _chunk(*row)) for row_id, *row in rows]


def _chunk(text: str, headings: str, table_header: str) -> Chunk:
    path = tuple(keywords.headings_of(headings))
    return Chunk(0, len(text), text, headings=path, table_header=table_header)


def _replace_vectors(connection: sqlite3.Connection, embedder: str) -> None:
    dimension = _one_dimension(connection)
    (last,) = connection.execute(
        "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'chunks'), 0), "
        "coalesce((SELECT max(id) FROM chunks), 0))"
    ).fetchone()
    connection.execute("DELETE FROM vectors")
    connection.execute("INSERT INTO deletions (chunk_id) SELECT id FROM chunks ORDER BY id")
    connection.execute(
        "UPDATE chunks SET embedding_hash = "
        "(SELECT hash FROM temp.embedded AS e WHERE e.id = chunks.id)"
    )
    connection.execute("UPDATE chunks SET id = id + ?", (last,))
    connection.execute(
        "INSERT INTO vectors SELECT c.id, p.vector FROM chunks AS c "
        "JOIN pending_vectors AS p ON p.embedding_hash = c.embedding_hash"
    )
    connection.execute(
        "DELETE FROM pending_vectors WHERE embedding_hash IN (SELECT hash FROM temp.embedded)"
    )
    connection.execute("DELETE FROM snapshots")
    connection.executemany(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)",
        (("embeddings", embedder), ("dimension", str(dimension))),
    )


def _one_dimension(connection: sqlite3.Connection) -> int:
    rows = connection.execute(
        "SELECT DISTINCT length(vector) FROM pending_vectors "
        "WHERE embedding_hash IN (SELECT hash FROM temp.embedded)"
    ).fetchall()
    if len(rows) > 1:
        raise KnowledgeBaseError("the embedder gave vectors of different lengths: use another one")
    item = np.dtype("<f4").itemsize
    return rows[0][0] // item if rows else 0


# ---------------------------------------------------------------- everything else


def _derive(connection: sqlite3.Connection, on_progress: Progress | None) -> None:
    _drop_orphans(connection)
    (total,) = connection.execute("SELECT count(*) FROM chunks").fetchone()

    def tell(done: int) -> None:
        if on_progress is not None:
            on_progress("keywords", done, total)

    keywords.rebuild(connection, tell)
    (largest,) = connection.execute("SELECT coalesce(max(id), 0) FROM chunks").fetchone()
    given = max(largest, rows.last_number(connection, "chunks"))
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'chunks'")
    connection.execute("INSERT INTO sqlite_sequence VALUES ('chunks', ?)", (given,))
    # The time is more than anybody has counted to.
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('change', ?)", (int(time.time()),))


def _drop_orphans(connection: sqlite3.Connection) -> None:
    """Rows that belong to nothing: no reader has ever seen them."""
    connection.execute("DELETE FROM chunks WHERE document_id NOT IN (SELECT id FROM documents)")
    connection.execute("DELETE FROM copies WHERE document_id NOT IN (SELECT id FROM documents)")
    connection.execute("DELETE FROM vectors WHERE id NOT IN (SELECT id FROM chunks)")
    connection.execute("DELETE FROM deletions WHERE chunk_id IN (SELECT id FROM chunks)")
