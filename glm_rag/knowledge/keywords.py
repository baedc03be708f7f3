"""The keyword index as a whole: what it holds of each chunk, and how it is made again.

The full-text table keeps no text. What is in it is compared by a print: how many terms a chunk
has, and a sum that every term and its place enter.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from zlib import crc32

from glm_rag.knowledge import records

# Number of terms, checksum.
Print = tuple[int, int]

_BATCH = 1000
_SEARCH_ALL = 5000
_STEP = 32


def print_of(terms: Sequence[str]) -> Print:
    """What `differing` compares of a chunk's terms."""
    return len(terms), sum(crc32(term.encode()) * (i + 1) for i, term in enumerate(terms))


def differing(connection: sqlite3.Connection, expected: Mapping[int, Print]) -> list[int]:
    """Ids of chunks that the index does not hold as expected, and of those it holds in excess.

    Raises:
        sqlite3.DatabaseError: the index is damaged.
    """
    connection.execute(
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.term_places "
        "USING fts5vocab (main, chunk_terms, instance)"
    )
    counts: dict[int, int] = dict.fromkeys(expected, 0)
    sums = dict(counts)
    last, checksum = "", 0
    for term, row_id, offset in connection.execute("SELECT term, doc, offset FROM term_places"):
        if term != last:
            last, checksum = term, crc32(term.encode())
        counts[row_id] = counts.get(row_id, 0) + 1
        sums[row_id] = sums.get(row_id, 0) + checksum * (offset + 1)
    present = {row[0] for row in connection.execute("SELECT id FROM chunk_terms_docsize")}
    held = {i: (counts[i], sums[i]) for i in counts if i in present or counts[i]}
    return sorted(i for i in {*held, *expected, *present} if held.get(i) != expected.get(i))


def num_lost(connection: sqlite3.Connection) -> int:
    """How many terms stand in the index and are not found when they are searched.

    Of a large index one term in `_STEP` is searched (70 microseconds each): a page that cannot be
    found holds more of them.

    Raises:
        sqlite3.DatabaseError: the index is damaged.
    """
    lost = 0
    terms = connection.execute("SELECT term, doc FROM term_statistics")
    for number, (term, count) in enumerate(terms):
        if number > _SEARCH_ALL and number % _STEP:
            continue
        found = connection.execute(
            "SELECT doc FROM term_statistics WHERE term = ?", (term,)
        ).fetchone()
        lost += found != (count,)
    return lost


def rebuild(connection: sqlite3.Connection, tell: Callable[[int], None]) -> None:
    """Make every chunk's terms, the full-text table and the totals again, from the chunks."""
    connection.execute("INSERT INTO chunk_terms (chunk_terms) VALUES ('delete-all')")
    done = 0
    for batch in _chunks(connection):
        for row_id, headings, table_header, text in batch:
            found = records.search_terms(headings, table_header, text)
            connection.execute(
                "UPDATE chunks SET terms = ?, num_terms = ? WHERE id = ?",
                (records.pack(found), len(found), row_id),
            )
            connection.execute(
                "INSERT INTO chunk_terms (rowid, terms) VALUES (?, ?)", (row_id, " ".join(found))
            )
        done += len(batch)
        tell(done)
    connection.execute("DELETE FROM totals")
    connection.execute(
        "INSERT INTO totals SELECT language, count(*), sum(num_terms) FROM chunks GROUP BY language"
    )


def _chunks(
    connection: sqlite3.Connection,
) -> Iterator[list[tuple[int, Sequence[str], str, str]]]:
    """Id, headings, table header and text of every chunk, in batches."""
    last = 0
    while True:
        rows = connection.execute(
            "SELECT id, headings, table_header, text FROM chunks WHERE id > ? ORDER BY id LIMIT ?",
            (last, _BATCH),
        ).fetchall()
        if not rows:
            return
        yield [(row_id, headings_of(given), header, text) for row_id, given, header, text in rows]
        last = rows[-1][0]


def headings_of(stored: str) -> list[str]:
    """The headings of a chunk; damaged ones cannot be made again, so there are none."""
    try:
        return list(json.loads(stored))
    except (ValueError, TypeError):
        return []
