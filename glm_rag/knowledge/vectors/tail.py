"""Vectors newer than a snapshot, in memory."""

from __future__ import annotations

from typing import Self

import numpy as np


class Tail:
    """Ids in ascending order with their vectors. A tail never changes: `plus` and `without` make
    another one, so a search in one thread goes on undisturbed. All share the memory of the
    vectors; only the newest may be extended.

    Args:
        dimension: length of the vectors.
        capacity: how many to make room for at once.
    """

    def __init__(self, dimension: int, capacity: int = 0) -> None:
        self._all_ids = np.empty(capacity, dtype=np.int64)
        self._all_vectors = np.empty((capacity, dimension), dtype=np.float32)
        self._is_alive = np.zeros(0, dtype=bool)

    def __len__(self) -> int:
        """Vectors held, the deleted ones included."""
        return len(self._is_alive)

    @property
    def num_alive(self) -> int:
        """Vectors that can be found."""
        return int(self._is_alive.sum())

    def plus(self, ids: np.ndarray, vectors: np.ndarray) -> Self:
        """With more vectors, whose ids are larger than all before."""
        start, end = len(self), len(self) + len(ids)
        if end > len(self._all_ids):
            self._grow(max(end, 2 * start))
        self._all_ids[start:end] = ids
        self._all_vectors[start:end] = vectors
        return self._with(np.concatenate([self._is_alive, np.ones(len(ids), dtype=bool)]))

    def without(self, ids: np.ndarray) -> Self:
        """Without these ids; those that are not here are ignored."""
        mine = self._all_ids[: len(self)]
        places = np.searchsorted(mine, ids)
        is_inside = places < len(mine)
        places, ids = places[is_inside], ids[is_inside]
        places = places[mine[places] == ids]
        if not len(places):
            return self
        is_alive = self._is_alive.copy()
        is_alive[places] = False
        return self._with(is_alive)

    def search(
        self, vector: np.ndarray, limit: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids and inner products of the nearest, in any order.

        Args:
            allowed: sorted ids that may be found, None for all.
        """
        ids, vectors = self._all_ids[: len(self)], self._all_vectors[: len(self)]
        can_be_found = self._is_alive
        if allowed is not None:
            can_be_found = can_be_found & np.isin(ids, allowed)
        places = np.flatnonzero(can_be_found)
        scores = (vectors @ vector)[places]
        if limit < len(places):
            best = np.argpartition(-scores, limit - 1)[:limit]
            places, scores = places[best], scores[best]
        return ids[places], scores

    def _grow(self, capacity: int) -> None:
        used = len(self)
        ids = np.empty(capacity, dtype=np.int64)
        vectors = np.empty((capacity, self._all_vectors.shape[1]), dtype=np.float32)
        ids[:used] = self._all_ids[:used]
        vectors[:used] = self._all_vectors[:used]
        self._all_ids, self._all_vectors = ids, vectors

    def _with(self, is_alive: np.ndarray) -> Self:
        other = type(self).__new__(type(self))
        other._all_ids, other._all_vectors = self._all_ids, self._all_vectors
        other._is_alive = is_alive
        return other
