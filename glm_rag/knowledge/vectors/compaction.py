"""Compaction: a new snapshot of a language out of its last one and what has changed since.

It works on a connection and a copy of its own, so nobody who reads or writes waits for it, and only
the last step, a rename and a row in one transaction, is seen by others. Killed before that, it
leaves the last snapshot in use; killed after, the new one.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from glm_rag.knowledge.database import Database
from glm_rag.knowledge.vectors import kinds, rows, snapshots
from glm_rag.knowledge.vectors.kinds import IndexLimits
from glm_rag.knowledge.vectors.snapshots import Snapshot

logger = logging.getLogger(__name__)

_SAMPLING_SEED = 0


@dataclass(frozen=True, slots=True)
class _Changes:
    """What has changed in a language since its snapshot.

    Attributes:
        last: its snapshot, None without one.
        count: chunks it has now.
        num_newer: those of them that the snapshot lacks.
        num_gone: vectors in the snapshot whose chunk was deleted.
    """

    last: Snapshot | None
    count: int
    num_newer: int
    num_gone: int

    @property
    def total(self) -> int:
        return self.num_newer + self.num_gone


def due_languages(connection: sqlite3.Connection, folder: Path, limits: IndexLimits) -> list[str]:
    """Languages whose snapshot lacks more than it should, or has lost its file."""
    counts, registered = rows.language_counts(connection), snapshots.read_snapshots(connection)
    newest = rows.last_number(connection, "deletions")
    most_behind = limits.changes(sum(counts.values()))
    due = []
    for language in sorted(counts.keys() | registered.keys()):
        changes = _changes(connection, language)
        last = changes.last
        # The log of deletions can only be cut where the oldest snapshot ends.
        is_old = last is not None and newest - last.last_deletion > most_behind
        is_lost = last is not None and not snapshots.has_file(folder, last)
        if is_old or is_lost or changes.total > limits.changes(changes.count):
            due.append(language)
    return due


def compact(folder: Path, language: str, limits: IndexLimits, *, anew: bool = False) -> None:
    """Write a snapshot of a language as it is now; a small language needs none.

    If another process writes one meanwhile, that one stays.

    Args:
        folder: of the knowledge base.
        anew: from the vectors in SQLite, whatever the last snapshot holds.

    Raises:
        KnowledgeBaseError: the database cannot be read or written.
        OSError: the file cannot be written.
    """
    with closing(Database(folder)) as database:
        with database.read() as connection:
            changes = _changes(connection, language)
            now = Snapshot(
                generation=0,
                language=language,
                sha256="",
                num_bytes=0,
                num_vectors=changes.count,
                last_id=rows.last_number(connection, "chunks"),
                last_deletion=rows.last_number(connection, "deletions"),
                num_trained=0,
            )
            index = None
            if changes.count > limits.min_changes and (
                anew or changes.total or _is_damaged(folder, changes.last)
            ):
                base = None if anew else changes.last
                index, num_trained = _build(connection, folder, base, now, limits)
                now = replace(now, num_vectors=int(index.ntotal), num_trained=num_trained)
        if index is not None:
            _publish(database, changes.last, now, index)
        else:
            _update_row(database, changes, now, limits)
        snapshots.sweep(database)


def _changes(connection: sqlite3.Connection, language: str) -> _Changes:
    last = snapshots.read_snapshots(connection).get(language)
    count = rows.language_counts(connection).get(language, 0)
    if last is None:
        return _Changes(None, count, count, 0)
    num_newer = rows.count_newer(connection, language, last.last_id)
    return _Changes(last, count, num_newer, max(0, last.num_vectors + num_newer - count))


def _is_damaged(folder: Path, snapshot: Snapshot | None) -> bool:
    return snapshot is not None and bool(snapshots.damage(folder, snapshot))


# ------------------------------------------------------------ the index


def _build(
    connection: sqlite3.Connection,
    folder: Path,
    last: Snapshot | None,
    now: Snapshot,
    limits: IndexLimits,
) -> tuple[Any, int]:
    """The index of all vectors of a language, and how many there were when it was trained."""
    dimension = rows.dimension(connection)
    wants_ivf = _wants_ivf(last, now.num_vectors, limits)
    if last is not None and _is_reusable(last, now.num_vectors, limits, wants_ivf=wants_ivf):
        index = snapshots.open_snapshot(folder, last, dimension, to_change=True)
        if index is not None and rows.first_deletion(connection) <= last.last_deletion + 1:
            kinds.remove(index, rows.deleted_ids(connection, last.last_deletion))
            _add(connection, index, now.language, after=last.last_id)
            if index.ntotal == now.num_vectors:
                return index, last.num_trained
            logger.warning("the index in %s has drifted: rebuilding it from the database", folder)
    if wants_ivf:
        sample = _sample(connection, now.language, dimension)
        index = kinds.new_ivf(sample, now.num_vectors)
    else:
        index = kinds.new_flat(dimension)
    _add(connection, index, now.language, after=0)
    return index, now.num_vectors if wants_ivf else 0


def _wants_ivf(last: Snapshot | None, count: int, limits: IndexLimits) -> bool:
    """Who shrinks keeps the lists until half the limit, so that nobody goes to and fro."""
    is_ivf = last is not None and last.num_trained > 0
    return count > (limits.flat // 2 if is_ivf else limits.flat)


def _is_reusable(last: Snapshot, count: int, limits: IndexLimits, *, wants_ivf: bool) -> bool:
    if not wants_ivf:
        return last.num_trained == 0
    return last.num_trained > 0 and count < limits.retrain_growth * last.num_trained


def _add(connection: sqlite3.Connection, index: Any, language: str, *, after: int) -> None:
    for ids, vectors in rows.newer_vectors(connection, language, after, index.d):
        index.add_with_ids(vectors, ids)


def _sample(connection: sqlite3.Connection, language: str, dimension: int) -> np.ndarray:
    """Vectors to train with, `[M, dimension]`, drawn from all ages; the same ones every time."""
    ids = rows.ids_of(connection, language)
    chance = np.random.default_rng(_SAMPLING_SEED)
    chosen = np.sort(chance.choice(ids, kinds.sample_size(len(ids)), replace=False))
    batches = rows.vectors_of(connection, chosen.tolist(), dimension)
    return np.concatenate([vectors for _, vectors in batches])


# ------------------------------------------------------------ the row


def _publish(database: Database, last: Snapshot | None, now: Snapshot, index: Any) -> None:
    written, sha256, num_bytes = snapshots.write_file(database.folder, index)
    try:
        with database.write(changes_chunks=False) as connection:
            present = snapshots.read_snapshots(connection).get(now.language)
            # Somebody may have been faster, or emptied it all and changed the embedder.
            if present == last and rows.dimension(connection) == index.d:
                snapshot = replace(now, sha256=sha256, num_bytes=num_bytes)
                written = snapshots.register(connection, database.folder, written, snapshot)
            else:
                written.unlink()
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def _update_row(database: Database, changes: _Changes, now: Snapshot, limits: IndexLimits) -> None:
    """Where no file has to be written: note that the last one is still right, or drop it."""
    last = changes.last
    if last is None:
        return
    with database.write(changes_chunks=False) as connection:
        if snapshots.read_snapshots(connection).get(now.language) != last:
            return
        if changes.count <= limits.min_changes:
            snapshots.unregister(connection, database.folder, last)
        else:
            snapshots.advance(connection, last, now)
