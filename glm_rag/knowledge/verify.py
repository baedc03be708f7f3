"""Does everything in a knowledge base agree with the stored texts? Reads, never writes."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import keywords, records
from glm_rag.knowledge.database import Database
from glm_rag.knowledge.vectors.checking import checked_snapshots, differing_vectors
from glm_rag.types import Chunk, VerifyFinding, VerifyReport, chunk_id

MAX_FINDINGS = 1000
_BATCH = 500
# float32 rounding of a vector of length 1 with some thousand numbers stays below.
_LENGTH_TOLERANCE = 1e-3
_MOST_NESTED = 10  # a damaged file may hold a circle

Progress = Callable[[int, int], None]
Findings = Iterator[VerifyFinding]


@dataclass(frozen=True, slots=True)
class _Mends:
    """What mends what, as commands for one knowledge base."""

    name: str
    connection: sqlite3.Connection

    @property
    def rebuild(self) -> str:
        return f"glm-rag kb rebuild {self.name}"

    @property
    def embed(self) -> str:
        return f"glm-rag kb rebuild {self.name} --embed"

    @property
    def restore(self) -> str:
        return "restore the folder from a backup or an export"

    def ingest(self, source: str) -> str:
        files = self._files_of(source)
        removed = (f'glm-rag kb remove "{file}" --kb {self.name}' for file in files)
        what = "that file" if len(files) == 1 else "these files"
        return f"{' && '.join(removed)}, then ingest {what} again"

    def _files_of(self, source: str) -> list[str]:
        """What must go for a document to be read anew: the file it is inside of, all its copies.

        A member that was removed comes back with its file only, and of a file that has copies one
        takes over the document.
        """
        for _ in range(_MOST_NESTED):
            row = self.connection.execute(
                "SELECT outside.source FROM documents AS d JOIN documents AS outside "
                "ON outside.source = d.container WHERE d.source = ?",
                (source,),
            ).fetchone()
            if row is None:
                break
            (source,) = row
        copies = self.connection.execute(
            "SELECT c.source FROM copies AS c JOIN documents AS d ON d.id = c.document_id "
            "WHERE d.source = ? ORDER BY c.source",
            (source,),
        )
        return list(dict.fromkeys([source, *(copy for (copy,) in copies)]))


@dataclass(slots=True)
class _Seen:
    """What the walk over the chunks leaves for the checks after it."""

    keywords: dict[int, keywords.Print] = field(default_factory=dict)


def verify(name: str, folder: Path, on_progress: Progress | None = None) -> VerifyReport:
    """Derive every chunk, vector length, search term and total again and compare.

    All of it is one moment of the knowledge base, whoever writes meanwhile. Memory: about 200
    bytes per chunk.

    Args:
        on_progress: gets the number of chunks checked, and of all.

    Raises:
        KnowledgeBaseError: it cannot be opened at all.
    """
    started = time.perf_counter()
    seen, findings, count = _Seen(), [], 0
    with closing(Database(folder)) as database, database.read() as connection:
        mends = _Mends(name, connection)
        totals = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("documents", "chunks")
        ]
        tell = counter(on_progress, totals[1])
        checks = (
            guarded(_file(connection, mends), "database", mends.restore),
            guarded(_meta(connection, mends), "meta", mends.restore),
            guarded(_documents(connection, mends), "document", mends.restore),
            guarded(_chunks(connection, mends, seen, tell), "chunk", mends.restore),
            guarded(_keywords(connection, mends, seen), "keywords", mends.rebuild),
            guarded(_totals(connection, mends), "totals", mends.rebuild),
            guarded(_index(connection, folder, mends), "index", mends.rebuild),
        )
        for check in checks:
            for finding in check:
                count += 1
                if count <= MAX_FINDINGS:
                    findings.append(finding)
    return VerifyReport(
        name=name,
        num_documents=totals[0],
        num_chunks=totals[1],
        num_findings=count,
        findings=tuple(findings),
        seconds=time.perf_counter() - started,
    )


def guarded(check: Findings, what: str, mend: str) -> Findings:
    """A damaged page ends one check, not all."""
    try:
        yield from check
    # SQLite keeps a value of any kind in any column.
    except (sqlite3.DatabaseError, TypeError, ValueError, KnowledgeBaseError) as error:
        yield VerifyFinding(what, "", f"cannot be read: {error}", mend)


def counter(on_progress: Progress | None, total: int) -> Callable[[int], None]:
    """Tells how many of `total` are done."""
    return lambda done: on_progress(done, total) if on_progress is not None else None


# ---------------------------------------------------------------- the file and the documents


def _file(connection: sqlite3.Connection, mends: _Mends) -> Findings:
    for (line,) in connection.execute("PRAGMA integrity_check (100)"):
        if line != "ok":
            problem = " ".join(str(line).split())
            yield VerifyFinding("database", "", problem, mends.restore)
    for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        problem = f"row {row_id} of {table} belongs to no row of {parent}"
        yield VerifyFinding("database", "", problem, mends.rebuild)


def _meta(connection: sqlite3.Connection, mends: _Mends) -> Findings:
    known = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if not str(known.get("change")).isdecimal():
        yield VerifyFinding("meta", "", "the counter of changes is lost", mends.rebuild)
    has_chunks = connection.execute("SELECT 1 FROM chunks LIMIT 1").fetchone() is not None
    if has_chunks and not ("embeddings" in known and str(known.get("dimension")).isdecimal()):
        problem = "which embedder made the vectors, and of what length, is lost"
        yield VerifyFinding("meta", "", problem, mends.embed)


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


def _documents(connection: sqlite3.Connection, mends: _Mends) -> Findings:
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


# ---------------------------------------------------------------- chunks and vectors


def _chunks(
    connection: sqlite3.Connection, mends: _Mends, seen: _Seen, tell: Callable[[int], None]
) -> Findings:
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


def _wrong_terms(row: Mapping[str, Any], source: str, mends: _Mends, seen: _Seen) -> Findings:
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


# ---------------------------------------------------------------- what is derived from them


def _keywords(connection: sqlite3.Connection, mends: _Mends, seen: _Seen) -> Findings:
    for row_id in keywords.differing(connection, seen.keywords):
        row = connection.execute(
            "SELECT d.source FROM chunks AS c JOIN documents AS d ON d.id = c.document_id "
            "WHERE c.id = ?",
            (row_id,),
        ).fetchone()
        problem = "the keyword index holds other terms than the chunk"
        if row is None:
            problem = f"the keyword index holds a chunk that is gone (number {row_id})"
        yield VerifyFinding("keywords", row[0] if row else "", problem, mends.rebuild)
    lost = keywords.num_lost(connection)
    if lost:
        problem = f"a search for {lost} of the terms finds other chunks than hold them"
        yield VerifyFinding("keywords", "", problem, mends.rebuild)


def _totals(connection: sqlite3.Connection, mends: _Mends) -> Findings:
    derived = set(
        connection.execute(
            "SELECT language, count(*), sum(num_terms) FROM chunks GROUP BY language"
        )
    )
    stored = set(connection.execute("SELECT * FROM totals WHERE num_chunks OR num_terms"))
    if derived != stored:
        problem = f"they are {_listed(stored)} and should be {_listed(derived)}"
        yield VerifyFinding("totals", "", problem, mends.rebuild)
    (largest,) = connection.execute("SELECT coalesce(max(id), 0) FROM chunks").fetchone()
    (given,) = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'chunks'"
    ).fetchone()
    if given < largest:
        problem = "a number of a chunk could be given a second time"
        yield VerifyFinding("totals", "", problem, mends.rebuild)


def _listed(totals: set[tuple[str, int, int]]) -> str:
    lines = (f"{count} chunks of {terms} terms ({lang})" for lang, count, terms in sorted(totals))
    return ", ".join(lines) or "none"


def _index(connection: sqlite3.Connection, folder: Path, mends: _Mends) -> Findings:
    (alive,) = connection.execute(
        "SELECT count(*) FROM deletions WHERE chunk_id IN (SELECT id FROM chunks)"
    ).fetchone()
    if alive:
        problem = f"{alive} chunks count as deleted and are not"
        yield VerifyFinding("index", "", problem, mends.rebuild)
    for snapshot, index, problem in checked_snapshots(connection, folder):
        if problem:
            yield VerifyFinding("index", "", problem, mends.rebuild)
        for row_id in differing_vectors(connection, snapshot, index):
            yield _differing_vector(connection, row_id, mends)


def _differing_vector(connection: sqlite3.Connection, row_id: int, mends: _Mends) -> VerifyFinding:
    source, number = connection.execute(
        "SELECT d.source, c.chunk_index FROM chunks AS c JOIN documents AS d "
        "ON d.id = c.document_id WHERE c.id = ?",
        (row_id,),
    ).fetchone()
    problem = f"chunk {number}: its vector is not the one in the index"
    return VerifyFinding("vector", source, problem, mends.embed)


# ---------------------------------------------------------------- saved answers


def verify_citations(
    citations: Sequence[Mapping[str, Any]],
    read: Callable[[Mapping[str, Any]], str],
) -> Findings:
    """Which citations of a saved answer do not open to their quote any more.

    Args:
        citations: as `glm-rag ask --json` prints them.
        read: the characters that a citation names now, empty where there are none.
    """
    for number, citation in enumerate(citations, 1):
        found, quote = read(citation), citation["quote"]
        if found == quote:
            continue
        where = f"citation {number}, characters {citation['start']} to {citation['end']}"
        problem = f"{where}: the document does not say {quote[:80]!r} there any more"
        yield VerifyFinding("citation", str(citation["source"]), problem, "ask again")
