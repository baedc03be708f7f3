"""A search among some chunks only finds what reading each of them would find."""

import numpy as np
import pytest

pytest.importorskip("faiss")
from vector_store import DIMENSION, unit

from glm_rag.knowledge.vectors import kinds


def test_a_filter_that_few_chunks_pass_is_searched_everywhere(store, reader):
    store.add("en", 4000)
    store.save()
    part = reader.ids(store.random()[0]) and reader.index._state.parts["en"]
    assert kinds.num_probed(4000, part.index.nlist, 40, 1.0) < part.index.nlist / 3
    for _ in range(5):
        vector, allowed = store.random()[0], set(store.some(40))
        found = reader.ids(vector, allowed=np.array(sorted(allowed)))
        assert found == store.nearest(vector, 10, allowed=allowed)


def test_a_filter_finds_enough_however_far_from_the_question_it_lies(store, reader, monkeypatch):
    north = np.eye(DIMENSION, dtype=np.float32)[0]

    def around(pole):
        def random(count=1, dimension=DIMENSION):
            noise = store.chance.standard_normal((count, dimension))
            return unit(pole + 0.3 * noise / np.linalg.norm(noise, axis=1, keepdims=True))

        return random

    monkeypatch.setattr(store, "random", around(north))
    near = store.add("en", 2000)
    monkeypatch.setattr(store, "random", around(-north))
    far = store.add("en", 2000)
    store.save()
    found = reader.ids(north, allowed=np.array(far))
    assert len(found) == 10
    assert set(found) <= set(store.nearest(north, 60, allowed=set(far)))
    assert set(reader.ids(north)) <= set(near)


def test_the_rarer_what_is_allowed_and_the_more_is_wanted_the_more_lists_are_read():
    def probed(wanted, share):
        return kinds.num_probed(10**6, 4000, wanted, share)

    assert probed(40, 1.0) < probed(40, 0.5) < probed(40, 0.25) < probed(40, 0.01) == 4000
    assert probed(40, 1.0) < probed(30_000, 1.0) < probed(10**6, 1.0) == 4000
    assert kinds.num_probed(100, 3, 40, 1.0) == 3
