"""Chunks against the texts of their documents, and their vectors."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from glm_rag.knowledge import keywords, records
from glm_rag.knowledge.verifying.mends import Findings, Mends
from glm_rag.types import Chunk, VerifyFinding, chunk_id

_BATCH = 500
# float32 rounding of a vector of length 1 with some thousand numbers stays below.
_LENGTH_TOLERANCE = 1e-3


@dataclass(slots=True)
class Seen:
    """What the walk over the chunks leaves for the checks after it."""

    keywords: dict[int, keywords.Print] = field(default_factory=dict)


def check_chunks(
    connection: sqlite3.Connection, mends: Mends, seen: Seen, tell: Callable[[int], None]
) -> Findings:
    """Texts, offsets, ids, search terms and vectors; `tell` gets the number of chunks done."""
    dimension = _dimension(connection)
    done = 0
    for document_id, source in connection.execute("SELECT id, source FROM documents").fetchall():
        (whole,) = connection.execute(
            "SELECT text FROM documents WHERE id = ?", (document_id,)
        ).fetchone()
        rows = _rows(connection, document_id)
        while batch := list(islice(rows, _BATCH)):
            for row in batch:
                for problem in wrong_text(row, source, whole):
                    yield VerifyFinding("chunk", source, problem, mends.ingest(source))
                yield from _wrong_terms(row, source, mends, seen)
                problem = wrong_vector(row["vector"], dimension)
                if problem:
                    line = f"chunk {row['chunk_index']}: {problem}"
                    yield VerifyFinding("vector", source, line, mends.embed)
            done += len(batch)
            tell(done)


def _rows(connection: sqlite3.Connection, document_id: int) -> Iterator[Mapping[str, Any]]:
    cursor = connection.execute(
        "SELECT c.*, v.vector FROM chunks AS c LEFT JOIN vectors AS v ON v.id = c.id "
        "WHERE c.document_id = ? ORDER BY c.chunk_index",
        (document_id,),
    )
    names = [column[0] for column in cursor.description]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def wrong_text(row: Mapping[str, Any], source: str, whole: str) -> Iterator[str]:
    """What is wrong with a stored chunk of the text `whole`; columns are those of SQLite."""
    start, end, text = row["start_offset"], row["end_offset"], row["text"]
    content_hash = Chunk(start, end, text).content_hash
    where = f"characters {start} to {end}"
    if whole[start:end] != text:
        yield f"{where} are not the chunk's text"
    elif content_hash != row["content_hash"]:
        yield f"{where} have another hash than their chunk"
    # A text that was added without a file has an id of its own.
    elif row["extra"] is None and row["key"] != chunk_id(source, start, content_hash):
        yield f"{where} have another id than their chunk"
    section = (row["section_start"], row["section_end"])
    if None not in section and not 0 <= section[0] <= section[1] <= len(whole):
        yield f"{where}: the section around them is not in the text"
    if not isinstance(row["page"], int | None):
        yield f"{where}: their page is no number"
    if not _is_metadata(row["extra"]):
        yield f"{where}: their metadata cannot be read"


def _is_metadata(stored: str | None) -> bool:
    try:
        known = None if stored is None else json.loads(stored, parse_constant=_refuse)
        return known is None or isinstance(known, dict)
    except (ValueError, TypeError):
        return False


def _refuse(constant: str) -> None:
    """Python reads NaN, SQLite does not."""
    raise ValueError(constant)


def _wrong_terms(row: Mapping[str, Any], source: str, mends: Mends, seen: Seen) -> Findings:
    where = f"characters {row['start_offset']} to {row['end_offset']}"
    try:
        headings = json.loads(row["headings"])
        found = records.search_terms(headings, row["table_header"], row["text"])
    except (ValueError, TypeError):
        problem = f"{where}: their headings cannot be read"
        yield VerifyFinding("chunk", source, problem, mends.ingest(source))
        return
    seen.keywords[row["id"]] = keywords.print_of(found)
    try:
        is_same = records.unpack(row["terms"]) == found and row["num_terms"] == len(found)
    except (ValueError, zlib.error):
        is_same = False
    if not is_same:
        problem = f"{where}: the search terms are not those of the text"
        yield VerifyFinding("keywords", source, problem, mends.rebuild)


def wrong_vector(data: object, dimension: int) -> str:
    """What is wrong with a stored vector, empty if nothing is."""
    if not isinstance(data, bytes):
        return "it has no vector"
    if len(data) != 4 * dimension:
        return f"its vector has {len(data) / 4:g} numbers and should have {dimension}"
    vector = np.frombuffer(data, dtype="<f4")
    if not np.isfinite(vector).all():
        return "its vector holds what is no number"
    length = float(np.linalg.norm(vector))
    # An embedder may give zeros for a text without a single token it knows.
    if length and abs(length - 1) > _LENGTH_TOLERANCE:
        return f"its vector has length {length:.4g} and should have 1"
    return ""


def _dimension(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM meta WHERE key = 'dimension'").fetchone()
    return int(row[0]) if row and str(row[0]).isdecimal() else 0
