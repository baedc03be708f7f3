"""Some of the passages, with their vectors: for a picture of all of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from glm_rag.knowledge import records

_BEGINNING = 160  # characters


@dataclass(frozen=True, slots=True)
class Sketch:
    """A passage in brief. `id` is the chunk's, `beginning` its first characters."""

    id: str
    source: str
    title: str
    page: int | None
    beginning: str


def sample(connection: sqlite3.Connection, limit: int) -> tuple[list[Sketch], np.ndarray]:
    """At most `limit` passages, taken evenly in the order they came, and `[N, D]` vectors.

    Works inside the caller's transaction; the same passages give the same sample.
    """
    (count,) = connection.execute("SELECT count(*) FROM chunks").fetchone()
    # Numbered without their vectors, which may be more than memory holds.
    rows = connection.execute(
        "SELECT c.key, d.source, d.title, c.page, substr(c.text, 1, ?3), v.vector "
        "FROM chunks AS c JOIN documents AS d ON d.id = c.document_id "
        "JOIN vectors AS v ON v.id = c.id WHERE c.id IN (SELECT id FROM (SELECT id, row_number() "
        "OVER (ORDER BY id) AS n FROM chunks) WHERE (n - 1) * ?1 / ?2 <> n * ?1 / ?2) "
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


def _stacked(vectors: Iterable[bytes]) -> np.ndarray:
    data = [np.frombuffer(vector, dtype="<f4") for vector in vectors]
    return np.stack(data) if data else np.zeros((0, 1), dtype=np.float32)
