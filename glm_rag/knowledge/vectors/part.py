"""One language's vectors: a mapped snapshot and the tail that came after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from glm_rag.knowledge.vectors import kinds
from glm_rag.knowledge.vectors.bitmaps import bitmap_of
from glm_rag.knowledge.vectors.gpu import GpuCopy
from glm_rag.knowledge.vectors.snapshots import Snapshot
from glm_rag.knowledge.vectors.tail import Tail

# Candidates of an approximate search that are scored exactly, for each one that is wanted. More
# found nothing more among a million: 8 bits seldom move a vector by so many places.
_RESCORED_PER_WANTED = 2
_MIN_RESCORED = 40

FetchVectors = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Part:
    """What can be searched of a language at one moment. It never changes; see `Tail`.

    Attributes:
        snapshot: None if there is none, or it was damaged: then everything is in the tail.
        index: the mapped FAISS index of the snapshot.
        gpu: its copy on a GPU, if there is one.
        refused: generation of a snapshot that could not be used, 0 if there is none.
    """

    tail: Tail
    snapshot: Snapshot | None = None
    index: Any = None
    gpu: GpuCopy | None = None
    refused: int = 0

    @property
    def generation(self) -> int:
        """Of the snapshot that is in use or was refused, 0 without one."""
        return self.snapshot.generation if self.snapshot is not None else self.refused

    def plus(self, ids: np.ndarray, vectors: np.ndarray) -> Self:
        """With new vectors."""
        return replace(self, tail=self.tail.plus(ids, vectors))

    def without(self, ids: np.ndarray) -> Self:
        """Without deleted vectors in the tail; those of the snapshot are kept out by `alive`."""
        tail = self.tail.without(ids)
        return self if tail is self.tail else replace(self, tail=tail)

    def num_changes(self, count: int) -> int:
        """How far the snapshot is behind if the language has `count` chunks."""
        in_snapshot = self.snapshot.num_vectors if self.snapshot is not None else 0
        return len(self.tail) + max(0, in_snapshot + self.tail.num_alive - count)

    def search(
        self,
        vector: np.ndarray,
        limit: int,
        fetch: FetchVectors,
        *,
        alive: np.ndarray | None,
        allowed: np.ndarray | None,
        allowed_share: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids and inner products of the nearest, in any order.

        Args:
            fetch: gives ids and vectors of those of the ids that exist.
            alive: bitmap of the snapshot's ids that are not deleted, None if all are alive.
            allowed: sorted ids that may be found, None for all.
            allowed_share: how many of all chunks these are.
        """
        ids, scores = self.tail.search(vector, limit, allowed)
        if self.snapshot is None:
            return ids, scores
        bits = alive
        if allowed is not None:
            bits = bitmap_of(allowed, self.snapshot.last_id + 1)
            if alive is not None:
                bits &= alive[: len(bits)]
        found = self._search_snapshot(vector, limit, fetch, bits, allowed_share)
        return np.concatenate([ids, found[0]]), np.concatenate([scores, found[1]])

    def _search_snapshot(
        self,
        vector: np.ndarray,
        limit: int,
        fetch: FetchVectors,
        bits: np.ndarray | None,
        allowed_share: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        is_approximate = kinds.is_ivf(self.index)
        wanted = max(_MIN_RESCORED, _RESCORED_PER_WANTED * limit) if is_approximate else limit
        ids, scores = kinds.search(
            self.index, vector, wanted, bits, allowed_share=allowed_share, gpu=self.gpu
        )
        if is_approximate and len(ids):
            ids, vectors = fetch(ids)
            scores = vectors @ vector
        return ids, scores
