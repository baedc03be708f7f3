"""Some of the passages: by chance, taken evenly, or the most central first.

All work inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from glm_rag.knowledge import records
from glm_rag.types import Language

_BEGINNING = 160  # characters
# ?1 of ?2 chunks, numbered without their vectors, which may be more than memory holds.
_EVENLY = (
    "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM chunks{where}) "
    "WHERE (n - 1) * ?1 / ?2 <> n * ?1 / ?2"
)


@dataclass(frozen=True, slots=True)
class Sketch:
    """A passage in brief. `id` is the chunk's, `beginning` its first characters."""

    id: str
    source: str
    title: str
    page: int | None
    beginning: str


def sample_ids(
    connection: sqlite3.Connection, limit: int, per_document: int, seed: int
) -> list[int]:
    """Chunks by chance: every document's first pick, then every second one, up to `limit`."""
    # Knuth's multiplicative hash; SQLite's own random() takes no seed.
    rows = connection.execute(
        "SELECT id FROM (SELECT id, document_id, row_number() OVER (PARTITION BY document_id "
        "ORDER BY (id + ?1) * 2654435761 % 4294967296) AS pick FROM chunks) WHERE pick <= ?2 "
        "ORDER BY pick, (document_id + ?1) * 2654435761 % 4294967296 LIMIT ?3",
        (seed, per_document, limit),
    )
    return [row_id for (row_id,) in rows]


def central_ids(connection: sqlite3.Connection) -> list[int]:
    """All chunks, those with the highest mean cosine to the others of their language first.

    Languages take turns in proportion to their numbers of chunks.
    """
    rows = connection.execute(
        "SELECT c.language, v.id, v.vector FROM vectors AS v JOIN chunks AS c ON c.id = v.id "
        "ORDER BY c.language, v.id"
    )
    places: list[tuple[float, int]] = []
    for _, group in groupby(rows, key=lambda row: row[0]):
        ids = _by_centrality([(row_id, vector) for _, row_id, vector in group])
        places += [((rank + 0.5) / len(ids), row_id) for rank, row_id in enumerate(ids)]
    return [row_id for _, row_id in sorted(places)]


def sample_vectors(connection: sqlite3.Connection, limit: int) -> dict[Language, np.ndarray]:
    """Vectors of chunks taken evenly from those of each language, `[<= limit, D]`."""
    languages = connection.execute("SELECT language, count(*) FROM chunks GROUP BY language")
    evenly = _EVENLY.format(where=" WHERE language = ?3")
    return {
        language: _stacked(
            vector
            for (vector,) in connection.execute(
                f"SELECT vector FROM vectors WHERE id IN ({evenly}) ORDER BY id",
                (min(limit, count), count, language),
            )
        )
        for language, count in languages.fetchall()
    }


def sketch(connection: sqlite3.Connection, limit: int) -> tuple[list[Sketch], np.ndarray]:
    """At most `limit` passages, taken evenly in the order they came, and `[N, D]` vectors.

    The same passages give the same sample.
    """
    (count,) = connection.execute("SELECT count(*) FROM chunks").fetchone()
    rows = connection.execute(
        "SELECT c.key, d.source, d.title, c.page, substr(c.text, 1, ?3), v.vector "
        "FROM chunks AS c JOIN documents AS d ON d.id = c.document_id "
        f"JOIN vectors AS v ON v.id = c.id WHERE c.id IN ({_EVENLY.format(where='')}) "
        "ORDER BY c.id",
        (min(limit, count), max(count, 1), _BEGINNING),
    ).fetchall()
    return [Sketch(*row[:5]) for row in rows], _stacked(row[5] for row in rows)


def vectors_of(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """The vectors of chunks by their id; unknown ids are left out."""
    found: dict[str, np.ndarray] = {}
    for batch in records.batches(keys):
        rows = connection.execute(
            "SELECT c.key, v.vector FROM chunks AS c JOIN vectors AS v ON v.id = c.id "
            f"WHERE c.key IN ({records.marks(batch)})",
            batch,
        )
        found |= {key: np.frombuffer(vector, dtype="<f4") for key, vector in rows}
    return found


def _by_centrality(rows: Sequence[tuple[int, bytes]]) -> list[int]:
    vectors = _stacked(vector for _, vector in rows)  # [N, D], normalised
    centrality = vectors @ vectors.mean(axis=0)
    return [rows[place][0] for place in np.argsort(-centrality, kind="stable")]


def _stacked(vectors: Iterable[bytes]) -> np.ndarray:
    data = [np.frombuffer(vector, dtype="<f4") for vector in vectors]
    return np.stack(data) if data else np.zeros((0, 1), dtype=np.float32)
