"""A tail gives every holder what it held when he took it."""

import numpy as np
import pytest

from glm_rag.knowledge.vectors.bitmaps import bitmap_of, full_bitmap, without
from glm_rag.knowledge.vectors.tail import Tail


def ids(tail, allowed=None, limit=100):
    found, scores = tail.search(np.array([1.0, 0.0], np.float32), limit, allowed)
    assert len(found) == len(scores)
    return sorted(found.tolist())


def extended(tail, *new):
    return tail.plus(np.array(new), np.array([[i, 1.0] for i in new], np.float32))


@pytest.mark.parametrize("capacity", [0, 2, 100])
def test_what_is_added_or_removed_later_does_not_disturb_an_earlier_holder(capacity):
    first = extended(Tail(2, capacity), 1, 2)
    second = extended(first, 5, 7)
    third = second.without(np.array([2, 3, 7, 99]))
    fourth = extended(third, 8)
    assert [ids(tail) for tail in (first, second, third, fourth)] == [
        [1, 2],
        [1, 2, 5, 7],
        [1, 5],
        [1, 5, 8],
    ]
    assert (len(fourth), fourth.num_alive) == (5, 3)


def test_removing_what_is_not_there_gives_the_same_tail():
    tail = extended(Tail(2), 4)
    assert tail.without(np.array([1, 9])) is tail
    assert Tail(2).without(np.array([1])).num_alive == 0


def test_the_best_are_chosen_among_the_allowed():
    tail = extended(Tail(2), 1, 2, 3, 4, 5).without(np.array([5]))
    assert ids(tail, limit=2) == [3, 4]
    assert ids(tail, allowed=np.array([1, 2, 5, 77]), limit=1) == [2]
    assert ids(tail, allowed=np.zeros(0, np.int64)) == []


def bits(bitmap):
    return np.flatnonzero(np.unpackbits(bitmap, bitorder="little")).tolist()


def test_bitmaps_hold_exactly_their_ids():
    assert bits(bitmap_of(np.array([0, 8, 9, 50]), 20)) == [0, 8, 9]
    whole = full_bitmap(20)
    assert bits(without(whole, np.array([0, 3, 3, 8, 19, 500]))) == sorted(
        set(range(20)) - {0, 3, 8, 19}
    )
    assert bits(whole) == list(range(20))
