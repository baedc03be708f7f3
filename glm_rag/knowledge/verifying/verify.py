"""`verify`: every check of one knowledge base in its folder, one after the other."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge.database import Database
from glm_rag.knowledge.verifying.chunks import Seen, check_chunks
from glm_rag.knowledge.verifying.derived import check_index, check_keywords, check_totals
from glm_rag.knowledge.verifying.documents import check_documents, check_file, check_meta
from glm_rag.knowledge.verifying.mends import Findings, Mends
from glm_rag.types import VerifyFinding, VerifyReport

MAX_FINDINGS = 1000

Progress = Callable[[int, int], None]


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
    findings, count = [], 0
    with closing(Database(folder)) as database, database.read() as connection:
        mends = Mends(name, connection)
        totals = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("documents", "chunks")
        ]
        tell = counter(on_progress, totals[1])
        for finding in _checks(connection, folder, mends, tell):
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


def _checks(
    connection: sqlite3.Connection, folder: Path, mends: Mends, tell: Callable[[int], None]
) -> Findings:
    seen = Seen()
    yield from _guarded(check_file(connection, mends), "database", mends.restore)
    yield from _guarded(check_meta(connection, mends), "meta", mends.restore)
    yield from _guarded(check_documents(connection, mends), "document", mends.restore)
    yield from _guarded(check_chunks(connection, mends, seen, tell), "chunk", mends.restore)
    yield from _guarded(check_keywords(connection, mends, seen), "keywords", mends.rebuild)
    yield from _guarded(check_totals(connection, mends), "totals", mends.rebuild)
    yield from _guarded(check_index(connection, folder, mends), "index", mends.rebuild)


def _guarded(check: Findings, what: str, mend: str) -> Findings:
    """A damaged page ends one check, not all."""
    try:
        yield from check
    # SQLite keeps a value of any kind in any column.
    except (sqlite3.DatabaseError, TypeError, ValueError, KnowledgeBaseError) as error:
        yield VerifyFinding(what, "", f"cannot be read: {error}", mend)


def counter(on_progress: Progress | None, total: int) -> Callable[[int], None]:
    """Tells how many of `total` are done."""
    return lambda done: on_progress(done, total) if on_progress is not None else None
