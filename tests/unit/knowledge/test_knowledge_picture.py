"""A sample of passages and the plane they are drawn on."""

import numpy as np
import pytest

from glm_rag.knowledge.projection import principal_plane

pytest.importorskip("faiss")


def cloud(seed=0, count=300, dimension=16):
    generator = np.random.default_rng(seed)
    scale = np.linspace(5, 0.1, dimension)
    return generator.normal(size=(count, dimension)) * scale + 3


def test_the_plane_is_that_of_the_singular_vectors():
    data = cloud()
    plane = principal_plane(data)
    _, _, directions = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)
    assert np.allclose(np.abs(plane.axes @ directions[:2].T), np.eye(2), atol=1e-8)


def test_no_other_plane_keeps_more_of_the_differences():
    data = cloud(1)
    spread = np.square(principal_plane(data).place(data)).sum()
    for seed in range(20):
        other, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(16, 2)))
        assert np.square((data - data.mean(axis=0)) @ other).sum() <= spread


def test_the_same_vectors_give_the_same_picture_whatever_their_order():
    data = cloud(2)
    shuffled = np.random.default_rng(3).permutation(len(data))
    first, second = principal_plane(data), principal_plane(data[shuffled])
    assert np.allclose(first.place(data), second.place(data))
    largest = np.abs(first.axes).argmax(axis=1)
    assert (first.axes[[0, 1], largest] > 0).all()


@pytest.mark.parametrize("data", [np.ones((1, 8)), np.ones((5, 8)), np.ones((3, 1)), np.eye(2)])
def test_few_or_equal_vectors_still_have_a_picture(data):
    placed = principal_plane(data).place(data)
    assert placed.shape == (len(data), 2)
    assert np.isfinite(placed).all()


def test_a_sample_is_spread_evenly_and_repeatable(kb, make):
    for name in ("a", "b", "c", "d"):
        kb.put_document(*make(f"file:///{name}.txt", name * 2000))
    assert kb.info().num_chunks == 400
    sketches, vectors = kb.sketch_passages(40)
    assert len(sketches) == len(vectors) == 40
    assert {sketch.source for sketch in sketches} == {f"file:///{n}.txt" for n in "abcd"}
    counts = [sum(s.source.endswith(f"{n}.txt") for s in sketches) for n in "abcd"]
    assert counts == [10, 10, 10, 10]
    again, same = kb.sketch_passages(40)
    assert again == sketches
    assert (same == vectors).all()
    everything, _ = kb.sketch_passages(1000)
    assert len(everything) == 400
