"""Keyword candidates and term statistics, in SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# The rarest terms decide; more only make the full-text query slow.
_MAX_MATCH_TERMS = 64
# SQLite ranks about a million matches a second (benchmarks/knowledge_scale.py), so this many cost
# 50 ms. A term of more chunks weighs little among so many.
_MAX_MATCHES = 50_000


def document_frequencies(connection: sqlite3.Connection, terms: Sequence[str]) -> dict[str, int]:
    """In how many chunks each term occurs; unknown terms are left out."""
    found = {}
    for term in terms:
        row = connection.execute(
            "SELECT doc FROM term_statistics WHERE term = ?", (term,)
        ).fetchone()
        if row is not None:
            found[term] = int(row[0])
    return found


def sparse_candidates(
    connection: sqlite3.Connection,
    frequencies: Mapping[str, int],
    limit: int,
    *,
    allowed: np.ndarray | None = None,
) -> list[int]:
    """Ids of the chunks that SQLite's own BM25 ranks first for the rarest of the terms.

    Args:
        frequencies: the known terms and in how many chunks they occur.
        allowed: choose among these ids only.
    """
    rarest = rarest_terms(frequencies)
    if not rarest or (allowed is not None and not len(allowed)):
        return []
    query = " OR ".join(f'"{term}"' for term in rarest)
    first, last = _searched_rows(connection, frequencies[rarest[0]], allowed)
    rows = connection.execute(
        "SELECT rowid FROM chunk_terms WHERE chunk_terms MATCH ? AND rowid BETWEEN ? AND ? "
        "ORDER BY rank",
        (query, first, last),
    )
    wanted = None if allowed is None else set(allowed.tolist())
    ids = (row[0] for row in rows)
    return list(islice((i for i in ids if wanted is None or i in wanted), limit))


def rarest_terms(frequencies: Mapping[str, int]) -> list[str]:
    """The rarest terms, as many as together occur in no more chunks than can be ranked; one at
    least."""
    chosen: list[str] = []
    num_matches = 0
    for term in sorted(frequencies, key=lambda term: frequencies[term])[:_MAX_MATCH_TERMS]:
        num_matches += frequencies[term]
        if chosen and num_matches > _MAX_MATCHES:
            break
        chosen.append(term)
    return chosen


def _searched_rows(
    connection: sqlite3.Connection, frequency: int, allowed: np.ndarray | None
) -> tuple[int, int]:
    """First and last id to look at: all, but of one very common term only the newest chunks."""
    if allowed is not None:
        return int(allowed.min()), int(allowed.max())
    (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM chunks").fetchone()
    share = min(1.0, _MAX_MATCHES / max(1, frequency))
    return (newest + 1 - int(newest * share) if share < 1 else 0), newest


def term_totals(connection: sqlite3.Connection) -> tuple[int, float]:
    """Number of chunks, and their mean length in terms."""
    count, total = connection.execute(
        "SELECT coalesce(sum(num_chunks), 0), coalesce(sum(num_terms), 0) FROM totals"
    ).fetchone()
    return count, (total / count if count else 0.0)
