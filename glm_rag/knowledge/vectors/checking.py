"""Whether the snapshots hold what the database says; for `kb verify`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from glm_rag.knowledge.database import Database
from glm_rag.knowledge.vectors import kinds, rows, snapshots
from glm_rag.knowledge.vectors.snapshots import Snapshot


def snapshot_problems(connection: sqlite3.Connection, folder: Path) -> list[str]:
    """One line for every registered snapshot that is not what it should be; none is expected."""
    return [wrong for _, _, wrong in checked_snapshots(connection, folder) if wrong]


def checked_snapshots(
    connection: sqlite3.Connection, folder: Path
) -> Iterator[tuple[Snapshot, Any | None, str]]:
    """Every registered snapshot, its FAISS index if it can be used, and what is wrong with it.

    A file that a writer has replaced since the reader's moment, and may have swept, is left out.
    """
    for snapshot in snapshots.read_snapshots(connection).values():
        wrong, index = snapshots.damage(folder, snapshot), None
        if not wrong:
            index = snapshots.open_snapshot(folder, snapshot, rows.dimension(connection))
            wrong = _difference(connection, folder, snapshot, index)
        if not (wrong and _was_replaced(folder, snapshot)):
            yield snapshot, index, wrong


def differing_vectors(
    connection: sqlite3.Connection, snapshot: Snapshot, index: Any | None
) -> Iterator[int]:
    """Ids of chunks whose vector is another than in an exact snapshot.

    The file agrees with its checksum, so the row has changed. Lists of 8-bit codes cannot tell.
    """
    if index is None or kinds.is_ivf(index):
        return
    ids, vectors = kinds.flat_content(index)
    order = np.argsort(ids)
    ids = ids[order]
    for stored_ids, stored in rows.newer_vectors(connection, snapshot.language, 0, index.d):
        places = np.searchsorted(ids, stored_ids)
        is_held = places < len(ids)
        is_held[is_held] = ids[places[is_held]] == stored_ids[is_held]
        held = vectors[order[places[is_held]]]
        differ = (held != stored[is_held]).any(axis=1)
        yield from stored_ids[is_held][differ].tolist()


def _was_replaced(folder: Path, snapshot: Snapshot) -> bool:
    with closing(Database(folder)) as now:
        query = "SELECT 1 FROM snapshots WHERE generation = ?"
        return now.value(query, (snapshot.generation,)) is None


def _difference(
    connection: sqlite3.Connection, folder: Path, snapshot: Snapshot, index: Any | None
) -> str:
    path = snapshots.path_of(folder, snapshot.generation)
    if index is None:
        return f"{path} cannot be used"
    gone = rows.deleted_ids(connection, snapshot.last_deletion)
    held = np.setdiff1d(kinds.stored_ids(index), gone)
    stored = rows.ids_of(connection, snapshot.language)
    expected = stored[stored <= snapshot.last_id]
    lacking = len(np.setdiff1d(expected, held))
    beyond = len(np.setdiff1d(held, expected))
    if lacking or beyond:
        return f"{path} lacks {lacking} chunks and has {beyond} that are gone"
    return ""
