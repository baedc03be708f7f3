"""What can be searched at one moment, and how to follow the database to the next.

The functions work inside the caller's read transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from glm_rag.knowledge.vectors import kinds, rows, snapshots
from glm_rag.knowledge.vectors.bitmaps import full_bitmap, without
from glm_rag.knowledge.vectors.gpu import GpuCopy
from glm_rag.knowledge.vectors.kinds import IndexLimits
from glm_rag.knowledge.vectors.part import Part
from glm_rag.knowledge.vectors.snapshots import Snapshot
from glm_rag.knowledge.vectors.tail import Tail

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class State:
    """Never changes: who searches keeps the one he has.

    Attributes:
        change: the database's counter at that moment, -1 before the first.
        last_id: up to where ids were followed,
        last_deletion: and the log of deletions.
        alive: bitmap of the ids in snapshots that are not deleted, None if all are alive.
        counts: chunks of each language that has any.
    """

    change: int = -1
    dimension: int = 0
    last_id: int = 0
    last_deletion: int = 0
    alive: np.ndarray | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)


def load(connection: sqlite3.Connection, folder: Path, earlier: State | None = None) -> State:
    """Map the snapshots and read what is newer; snapshots that `earlier` has are not read again."""
    dimension = rows.dimension(connection)
    if not dimension:
        return State()
    counts = rows.language_counts(connection)
    registered = snapshots.read_snapshots(connection)
    known = earlier.parts if earlier is not None and earlier.dimension == dimension else {}
    parts = {}
    for language in counts:
        snapshot, part = registered.get(language), known.get(language)
        if snapshot is None:
            part = Part(Tail(dimension))
        elif part is None or part.generation != snapshot.generation:
            part = _open(connection, folder, snapshot, dimension)
        elif part.snapshot is not None:
            part = replace(part, snapshot=snapshot)  # its row may have been brought forward
        parts[language] = replace(part, tail=_read_tail(connection, language, part, dimension))
    last_deletion = rows.last_number(connection, "deletions")
    behind = [part.snapshot.last_deletion for part in parts.values() if part.snapshot is not None]
    gone = rows.deleted_ids(connection, min(behind, default=last_deletion))
    return State(
        dimension=dimension,
        last_id=rows.last_number(connection, "chunks"),
        last_deletion=last_deletion,
        alive=without(_all_alive(parts), gone) if len(gone) else None,
        counts=counts,
        parts=parts,
    )


def follow(state: State, connection: sqlite3.Connection, limits: IndexLimits) -> State | None:
    """The state with what is new and without what is gone; None if it must be loaded.

    That is so at the beginning, when the log of deletions was cut before this reader had seen it
    all, and when a snapshot has become available that spares a long tail.
    """
    if state.change < 0 or rows.dimension(connection) != state.dimension:
        return None
    counts = rows.language_counts(connection)
    gone = rows.deleted_ids(connection, state.last_deletion)
    last_deletion = rows.last_number(connection, "deletions")
    if len(gone) != last_deletion - state.last_deletion or _has_better(
        state, connection, counts, limits
    ):
        return None
    parts = {language: part.without(gone) for language, part in state.parts.items()}
    last_id = rows.last_number(connection, "chunks")
    if last_id > state.last_id:
        _add_newer(parts, connection, state)
    alive = state.alive
    if len(gone):
        alive = without(_all_alive(parts) if alive is None else alive, gone)
    return replace(
        state,
        last_id=last_id,
        last_deletion=last_deletion,
        alive=alive,
        counts=counts,
        parts={language: part for language, part in parts.items() if language in counts},
    )


def _open(connection: sqlite3.Connection, folder: Path, snapshot: Snapshot, dimension: int) -> Part:
    index = None
    # Without the deletions since, its file would bring dead chunks back.
    if rows.first_deletion(connection) <= snapshot.last_deletion + 1:
        index = snapshots.open_snapshot(folder, snapshot, dimension)
    if index is None:
        return Part(Tail(dimension), refused=snapshot.generation)
    return Part(Tail(dimension), snapshot, index, GpuCopy.make(kinds.load_faiss(), index))


def _read_tail(connection: sqlite3.Connection, language: str, part: Part, dimension: int) -> Tail:
    after = part.snapshot.last_id if part.snapshot is not None else 0
    tail = Tail(dimension, rows.count_newer(connection, language, after))
    for ids, vectors in rows.newer_vectors(connection, language, after, dimension):
        tail = tail.plus(ids, vectors)
    return tail


def _add_newer(parts: dict[str, Part], connection: sqlite3.Connection, state: State) -> None:
    batches = rows.all_newer_vectors(connection, state.last_id, state.dimension)
    for languages, ids, vectors in batches:
        for language in set(languages.tolist()):
            chosen = languages == language
            part = parts.get(language) or Part(Tail(state.dimension))
            parts[language] = part.plus(ids[chosen], vectors[chosen])


def _has_better(
    state: State,
    connection: sqlite3.Connection,
    counts: Mapping[str, int],
    limits: IndexLimits,
) -> bool:
    """Whether a language with many changes has another snapshot than the one in use."""
    num_new = rows.last_number(connection, "chunks") - state.last_id
    changed = []
    for language, part in state.parts.items():
        count = counts.get(language, 0)
        if part.num_changes(count) + num_new > limits.changes(count):
            changed.append((language, part.generation))
    if not changed:
        return False
    registered = snapshots.read_snapshots(connection)
    return any(
        language in registered and registered[language].generation != generation
        for language, generation in changed
    )


def _all_alive(parts: Mapping[str, Part]) -> np.ndarray:
    ends = [part.snapshot.last_id for part in parts.values() if part.snapshot is not None]
    return full_bitmap(max(ends, default=-1) + 1)
