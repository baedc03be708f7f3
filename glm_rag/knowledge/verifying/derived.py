"""What is derived from the chunks: keyword index, totals and vector index."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from glm_rag.knowledge import keywords
from glm_rag.knowledge.vectors.checking import checked_snapshots, differing_vectors
from glm_rag.knowledge.verifying.chunks import Seen
from glm_rag.knowledge.verifying.mends import Findings, Mends
from glm_rag.types import VerifyFinding


def check_keywords(connection: sqlite3.Connection, mends: Mends, seen: Seen) -> Findings:
    """The keyword index against the terms that were `seen` in the chunks."""
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


def check_totals(connection: sqlite3.Connection, mends: Mends) -> Findings:
    """Totals by language, and the counter that numbers chunks."""
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


def check_index(connection: sqlite3.Connection, folder: Path, mends: Mends) -> Findings:
    """What counts as deleted, and the vectors in the index against the stored ones."""
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


def _differing_vector(connection: sqlite3.Connection, row_id: int, mends: Mends) -> VerifyFinding:
    source, number = connection.execute(
        "SELECT d.source, c.chunk_index FROM chunks AS c JOIN documents AS d "
        "ON d.id = c.document_id WHERE c.id = ?",
        (row_id,),
    ).fetchone()
    problem = f"chunk {number}: its vector is not the one in the index"
    return VerifyFinding("vector", source, problem, mends.embed)
