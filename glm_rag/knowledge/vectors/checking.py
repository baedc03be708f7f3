"""Whether the snapshots hold what the database says; for `kb verify`."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from glm_rag.knowledge.vectors import kinds, rows, snapshots
from glm_rag.knowledge.vectors.snapshots import Snapshot


def snapshot_problems(connection: sqlite3.Connection, folder: Path) -> list[str]:
    """One line for every registered snapshot that is not what it should be; none is expected."""
    found = []
    for snapshot in snapshots.read_snapshots(connection).values():
        wrong = snapshots.damage(folder, snapshot) or _difference(connection, folder, snapshot)
        if wrong:
            found.append(wrong)
    return found


def _difference(connection: sqlite3.Connection, folder: Path, snapshot: Snapshot) -> str:
    path = snapshots.path_of(folder, snapshot.generation)
    dimension = rows.dimension(connection)
    index = snapshots.open_snapshot(folder, snapshot, dimension)
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
