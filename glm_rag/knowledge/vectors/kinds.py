"""The two kinds of FAISS indexes: exact (Flat), and inverted lists of 8-bit codes (IVF,SQ8).

An IVF index only proposes: its candidates are scored again with the float32 vectors in SQLite, so
8 bits cost no precision, a quarter of the disk, and a file that is checked and mapped in the time
an opening may take (`benchmarks/knowledge_scale.py`). It keeps the ids itself: `IndexIDMap` over
IVF corrupts them when something is removed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm_rag.errors import MissingDependencyError
from glm_rag.knowledge.vectors.gpu import GpuCopy, training_on_gpu

# Lists by the square root of the number of vectors, as FAISS's guidelines have it.
_LISTS_PER_ROOT = 4
# FAISS wants 39 training vectors for each list and warns below; more train no better lists.
_TRAINING_PER_LIST = 39
# Share of the lists that a search reads: finds 98 of the 100 nearest even where clusters overlap so
# much that a 60th finds 75 (benchmarks/knowledge_scale.py), at 6 ms among a million.
_PROBED_SHARE = 1 / 6
_MIN_PROBED = 32
# A search reads so many vectors for each one that is wanted, so that a large k finds enough.
_READ_PER_WANTED = 10


@dataclass(frozen=True, slots=True)
class IndexLimits:
    """When what is done. The defaults are for use; tests lower them.

    Attributes:
        flat: up to so many vectors of a language, the search is exact.
        retrain_growth: lists are trained again when the vectors have become so many times more.
        min_changes: so many new and deleted vectors are served without a new snapshot,
        change_share: or so large a share of the vectors, whichever is more.
        scanned: a search among so few ids reads their vectors from SQLite.
    """

    flat: int = 200_000
    retrain_growth: int = 4
    min_changes: int = 5_000
    change_share: float = 0.05
    scanned: int = 2_000

    def changes(self, num_vectors: int) -> int:
        """How many changes a snapshot of so many vectors bears."""
        return max(self.min_changes, int(self.change_share * num_vectors))


def load_faiss() -> Any:
    """The module, imported when it is needed first."""
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError.for_extra("faiss", "cpu") from error
    return faiss


def is_ivf(index: Any) -> bool:
    """Whether an index is approximate."""
    return isinstance(index, load_faiss().IndexIVF)


def new_flat(dimension: int) -> Any:
    """An empty exact index."""
    faiss = load_faiss()
    return faiss.IndexIDMap(faiss.IndexFlatIP(dimension))


def new_ivf(sample: np.ndarray, num_vectors: int) -> Any:
    """An empty IVF index for `num_vectors` vectors like those of the sample, `[M, dimension]`."""
    faiss = load_faiss()
    dimension = sample.shape[1]
    quantizer = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer,
        dimension,
        num_lists(num_vectors),
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
    )
    # Vectors are normalised, so nearest by inner product needs normalised centres.
    index.cp.spherical = True
    index.cp.min_points_per_centroid = 1
    with training_on_gpu(faiss, index):
        index.train(sample)
    return index


def num_lists(num_vectors: int) -> int:
    """Inverted lists for so many vectors."""
    return max(1, round(_LISTS_PER_ROOT * math.sqrt(num_vectors)))


def sample_size(num_vectors: int) -> int:
    """Vectors to train the lists with."""
    return min(num_vectors, _TRAINING_PER_LIST * num_lists(num_vectors))


def num_probed(num_vectors: int, lists: int, wanted: int, allowed_share: float) -> int:
    """Lists to read for `wanted` results when only a share of the vectors is allowed."""
    share = max(_PROBED_SHARE, _MIN_PROBED / lists, _READ_PER_WANTED * wanted / num_vectors)
    return min(lists, math.ceil(lists * share / max(allowed_share, 1e-9)))


def search(
    index: Any,
    vector: np.ndarray,
    wanted: int,
    bits: np.ndarray | None,
    *,
    allowed_share: float = 1.0,
    gpu: GpuCopy | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and inner products of the nearest vectors, best first; approximate for IVF.

    Args:
        bits: bitmap of the ids that may be found, None for all.
        allowed_share: share of the vectors that `bits` lets through.
        gpu: a copy of the index, which knows no bitmaps.
    """
    wanted = min(wanted, index.ntotal)
    if not wanted:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    options: dict[str, Any] = {}
    if is_ivf(index):
        options["nprobe"] = num_probed(index.ntotal, index.nlist, wanted, allowed_share)
    if gpu is not None and bits is None:
        scores, ids = gpu.search(vector, wanted, options)
    else:
        scores, ids = index.search(vector[None], wanted, params=_parameters(options, bits))
    is_found = ids[0] >= 0  # FAISS fills up with -1
    return ids[0][is_found], scores[0][is_found]


def _parameters(options: dict[str, Any], bits: np.ndarray | None) -> Any:
    faiss = load_faiss()
    kind = faiss.SearchParametersIVF if options else faiss.SearchParameters
    # The selector only points at the bits: the caller keeps them while it searches.
    return kind(**options, **({} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}))


def stored_ids(index: Any) -> np.ndarray:
    """All ids in an index, sorted."""
    faiss = load_faiss()
    if not is_ivf(index):
        return np.sort(faiss.vector_to_array(index.id_map))
    lists = index.invlists
    parts: Sequence[np.ndarray] = [
        faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
        for number in range(index.nlist)
        if lists.list_size(number)
    ]
    return np.sort(np.concatenate([*parts, np.zeros(0, np.int64)]))


def remove(index: Any, ids: np.ndarray) -> None:
    """Remove ids; those that are not there are ignored."""
    if len(ids):
        index.remove_ids(load_faiss().IDSelectorBatch(np.ascontiguousarray(ids, np.int64)))
