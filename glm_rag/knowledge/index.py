"""The vector index: derived from the vectors in SQLite, never needed to keep anything.

Each language has a snapshot file once it has some thousand chunks (`vectors/snapshots.py`), and a
tail of what is newer, read from SQLite (`vectors/tail.py`). What was deleted since is kept out by a
bitmap, filled from the log that a trigger writes. So a refresh costs what has changed, not what
there is (`vectors/state.py`). Writers write new snapshots (`vectors/compaction.py`).
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import replace
from functools import partial

import numpy as np

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge.database import Database
from glm_rag.knowledge.vectors import rows, snapshots
from glm_rag.knowledge.vectors.checking import snapshot_problems
from glm_rag.knowledge.vectors.compactor import Compactor
from glm_rag.knowledge.vectors.kinds import IndexLimits
from glm_rag.knowledge.vectors.state import State, follow, load


class VectorIndex:
    """Search by inner product over all chunks of a database.

    Exact up to 200,000 chunks of a language; above that a few may be missed, and scores are exact.
    Any thread may search. `refresh` must be called inside `database.read()`: then index and rows
    are of one moment.

    Args:
        limits: when a snapshot is written and when it becomes approximate.
    """

    def __init__(self, database: Database, limits: IndexLimits | None = None) -> None:
        self._database = database
        self._limits = limits or IndexLimits()
        self._compactor = Compactor(database, self._limits)
        self._refreshing = threading.Lock()
        self._state = State()

    def __len__(self) -> int:
        return sum(self._state.counts.values())

    @property
    def dimension(self) -> int:
        """Length of the vectors, 0 while there are none."""
        return self._state.dimension

    @property
    def languages(self) -> list[str]:
        """Languages that have chunks."""
        return sorted(self._state.counts)

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Follow what has changed in SQLite, whoever wrote it."""
        with self._refreshing:
            change = self._database.change()
            if change != self._state.change:
                state = follow(self._state, connection, self._limits)
                if state is None:
                    state = load(connection, self._database.folder, self._state)
                    if not self._database.read_only:
                        snapshots.sweep(self._database)
                self._state = replace(state, change=change)

    def search(
        self,
        vector: np.ndarray,
        limit: int,
        *,
        language: str | None = None,
        allowed: np.ndarray | None = None,
    ) -> list[tuple[int, float]]:
        """The nearest chunks as (id, inner product), best first.

        Args:
            vector: float32 of length `dimension`.
            language: search only chunks of this language.
            allowed: search only these ids.

        Raises:
            KnowledgeBaseError: the vector has another length, or is not made of numbers.
        """
        state = self._state
        if not state.counts or limit < 1:
            return []
        _check(vector, state.dimension)
        if allowed is not None and len(allowed) <= self._limits.scanned:
            ids, vectors = self._fetch(state.dimension, allowed, language)
            return _best(ids, vectors @ vector, limit)
        share = 1.0 if allowed is None else len(allowed) / max(len(allowed), len(self))
        found = [(np.zeros(0, np.int64), np.zeros(0, np.float32))]
        for name, part in state.parts.items():
            if language in (None, name):
                found.append(
                    part.search(
                        vector,
                        limit,
                        partial(self._fetch, state.dimension),
                        alive=state.alive,
                        allowed=allowed,
                        allowed_share=share,
                    )
                )
        return _best(*_joined(found), limit)

    def vector(self, row_id: int) -> np.ndarray:
        """The stored vector of an id, `[dimension]`.

        Raises:
            KnowledgeBaseError: there is none.
        """
        blob = self._database.value("SELECT vector FROM vectors WHERE id = ?", (row_id,))
        if blob is None:
            raise KnowledgeBaseError(f"{self._database.path} has no vector with id {row_id}")
        return np.frombuffer(blob, dtype="<f4").astype(np.float32)

    def compact_if_due(self) -> None:
        """Begin new snapshots in the background if enough has changed: call it after a commit."""
        self._compactor.start_if_due()

    def save(self) -> None:
        """Write the snapshots that are due, and wait for them: call it before closing a writer.

        Without it nothing is lost, only the next opening takes longer.
        """
        parts = self._state.parts.items()
        self._compactor.finish(refused=[name for name, part in parts if part.refused])

    def rebuild(self) -> None:
        """Write all snapshots anew from the vectors in SQLite."""
        self._compactor.rebuild()
        with self._refreshing:
            self._state = State()

    def problems(self) -> list[str]:
        """One line for every snapshot that is damaged or holds other chunks than the database."""
        with self._database.read() as connection:
            return snapshot_problems(connection, self._database.folder)

    def _fetch(
        self, dimension: int, ids: np.ndarray, language: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Those of the ids that exist, and their exact vectors."""
        with self._database.read() as connection:
            batches = rows.vectors_of(connection, ids.tolist(), dimension, language)
            empty = (np.zeros(0, np.int64), np.zeros((0, dimension), np.float32))
            return _joined([empty, *batches])


def _check(vector: np.ndarray, dimension: int) -> None:
    if vector.shape != (dimension,):
        raise KnowledgeBaseError(
            f"the question's vector has shape {vector.shape}, the knowledge base's vectors "
            f"have {dimension} numbers: search with the embedder that built it"
        )
    if not np.isfinite(vector).all():
        raise KnowledgeBaseError(
            "the question's vector is not made of numbers: use another embedder"
        )


def _joined(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


def _best(ids: np.ndarray, scores: np.ndarray, limit: int) -> list[tuple[int, float]]:
    order = np.lexsort((ids, -scores))[:limit]
    return [(int(ids[place]), float(scores[place])) for place in order]
