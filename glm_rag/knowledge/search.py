"""Keyword candidates, term statistics and metadata filters, in SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from glm_rag.errors import ConfigError

# Metadata of chunks of files; texts that were added without a file have what they came with.
_COLUMNS = {
    "title": "d.title",
    "container": "d.container",
    "page": "c.page",
    "start": "c.start_offset",
    "end": "c.end_offset",
    "chunk_index": "c.chunk_index",
    "content_hash": "c.content_hash",
    "language": "c.language",
}
# The rarest terms decide; more only make the full-text query slow.
_MAX_MATCH_TERMS = 64
# SQLite ranks about a million matches a second (benchmarks/knowledge_scale.py), so this many cost
# 50 ms. A term of more chunks weighs little among so many.
_MAX_MATCHES = 50_000


def matching_ids(connection: sqlite3.Connection, where: Mapping[str, Any]) -> np.ndarray:
    """Sorted ids of the chunks whose metadata has every given value, or one of a list of values.

    Raises:
        ConfigError: a value that metadata cannot be compared with.
    """
    conditions = [_condition(name, wanted) for name, wanted in where.items()]
    of_files = [_of_file(name, test) for name, test, _ in conditions]
    of_texts = [f"json_extract(c.extra, ?) {test}" for _, test, _ in conditions]
    # Two queries, so that each can use an index.
    query = (
        "SELECT c.id FROM documents AS d JOIN chunks AS c ON c.document_id = d.id "
        f"WHERE {' AND '.join(['c.extra IS NULL', *of_files])} UNION ALL "
        "SELECT c.id FROM chunks AS c "
        f"WHERE {' AND '.join(['c.extra IS NOT NULL', *of_texts])}"
    )
    parameters: list[Any] = []
    for name, _, values in conditions:
        parameters += values * (2 if name == "source" else 1)
    for name, _, values in conditions:
        parameters += [f'$."{name}"', *values]
    rows = connection.execute(query, parameters)
    return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64))


def _of_file(name: str, test: str) -> str:
    """The condition on a chunk of a file; its document may have several sources."""
    if name != "source":
        return f"{_COLUMNS.get(name, 'NULL')} {test}"
    return (
        f"d.id IN (SELECT id FROM documents WHERE source {test} UNION ALL "
        f"SELECT document_id FROM copies WHERE source {test})"
    )


def _condition(name: str, wanted: Any) -> tuple[str, str, list[Any]]:
    """The name, what SQL asks of its value, and the parameters of that."""
    if not isinstance(name, str) or '"' in name:
        raise ConfigError(f"cannot filter by {name!r}: name a key of the metadata")
    if wanted is None:
        return name, "IS NULL", []
    options = list(wanted) if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
    for option in options:
        if not isinstance(option, str | int | float):
            raise ConfigError(
                f"cannot filter {name!r} by {type(option).__name__}: give a text, a number, "
                "true or false, or a list of them"
            )
    return name, f"IN ({', '.join('?' * len(options))})", options


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
    rarest = _affordable(frequencies)
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


def _affordable(frequencies: Mapping[str, int]) -> list[str]:
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
