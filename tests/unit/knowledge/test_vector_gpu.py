"""A GPU serves where faiss-gpu finds one, and only what it can do. Fakes stand for it."""

from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("faiss")
import faiss
from vector_store import SMALL

from glm_rag.knowledge.vectors import gpu


class Copy:
    """A GPU index that counts; like the real ones it refuses a selection of ids."""

    def __init__(self, index):
        self.index = index
        self.searches = 0

    def search(self, vectors, k, params=None):
        assert params is None or params.sel is None
        assert k <= 2048, "more results than a GPU gives"
        self.searches += 1
        return self.index.search(vectors, k, params=params)


@pytest.fixture
def copies(monkeypatch):
    """A FAISS with one GPU, unless the test says otherwise; gives the copies made on it."""
    made = []

    def to_gpu(resources, device, index):
        made.append(Copy(index))
        return made[-1]

    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: index, raising=False)
    return made


@pytest.mark.parametrize("count", [SMALL.flat, 3 * SMALL.flat])
def test_searches_go_to_the_gpu_but_those_of_selected_ids(store, copies, count):
    store.add("en", count)
    store.save()
    vector = store.random()[0]
    with closing(store.reader()) as reader:
        assert reader.ids(vector) == store.nearest(vector, 10)
        [copy] = copies
        assert copy.searches == 1
        allowed = set(store.some(20))
        found = reader.ids(vector, allowed=np.array(sorted(allowed)))
        assert found == store.nearest(vector, 10, allowed=allowed)
        store.delete(store.some(1))
        assert reader.ids(vector) == store.nearest(vector, 10)
        assert copy.searches == 1


def test_more_results_than_a_gpu_gives_come_from_the_cpu(store, copies):
    store.add("en", 2100)
    store.save()
    vector = store.random()[0]
    with closing(store.reader()) as reader:
        assert len(reader.ids(vector, 2100)) == 2100
        assert len(reader.ids(vector, 10)) == 10
    assert copies[0].searches == 1


def test_lists_are_trained_on_all_gpus(store, copies, monkeypatch):
    trained = []
    monkeypatch.setattr(
        faiss, "index_cpu_to_all_gpus", lambda index: trained.append(index.d) or index
    )
    store.add("en", SMALL.flat + 1)
    store.save()
    assert trained == [16]


def test_a_gpu_without_enough_memory_is_done_without(store, copies, monkeypatch):
    def refuse(*args):
        raise RuntimeError("Error: 'err == cudaSuccess' failed: out of memory")

    store.add("en", 50)
    store.save()
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", refuse)
    vector = store.random()[0]
    with closing(store.reader()) as reader:
        assert reader.ids(vector) == store.nearest(vector, 10)
    assert copies == []


def test_without_a_device_or_with_the_cpu_package_there_is_no_gpu(monkeypatch, copies):
    assert gpu.has_gpu(faiss)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert not gpu.has_gpu(faiss)
    monkeypatch.delattr(faiss, "StandardGpuResources")
    assert not gpu.has_gpu(faiss)
