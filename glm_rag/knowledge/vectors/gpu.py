"""What faiss-gpu speeds up where it is installed and sees a device: training and searching."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np


def has_gpu(faiss: Any) -> bool:
    """Whether this FAISS can use a GPU of this machine."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


@contextmanager
def training_on_gpu(faiss: Any, index: Any) -> Iterator[None]:
    """Find the centres of an IVF index on all GPUs; the index itself stays on the CPU."""
    if not has_gpu(faiss):
        yield
        return
    index.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(index.d))
    try:
        yield
    finally:
        index.clustering_index = None


class GpuCopy:
    """A snapshot in the memory of the first GPU, for searches without a selection of ids.

    A GPU index serves one thread at a time.
    """

    MOST_WANTED = 2048  # results of one search, faiss/gpu/utils/DeviceDefs.cuh

    def __init__(self, faiss: Any, index: Any) -> None:
        self._faiss = faiss
        self._resources = faiss.StandardGpuResources()  # must outlive the copy
        self._index = faiss.index_cpu_to_gpu(self._resources, 0, index)
        self._lock = threading.Lock()

    @classmethod
    def make(cls, faiss: Any, index: Any) -> Self | None:
        """A copy, or None without a GPU or enough of its memory."""
        if not has_gpu(faiss):
            return None
        try:
            return cls(faiss, index)
        except RuntimeError:  # what FAISS raises for every CUDA error
            return None

    def search(
        self, vector: np.ndarray, wanted: int, options: Mapping[str, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and ids, `[1, wanted]` each; `options` are those of an IVF search."""
        parameters = self._faiss.SearchParametersIVF(**options) if options else None
        with self._lock:
            scores, ids = self._index.search(vector[None], wanted, params=parameters)
        return scores, ids
