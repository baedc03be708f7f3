"""Intervals: they cover what they should, pairing and groups are respected."""

import numpy as np
import pytest

from glm_rag.evaluation.bootstrap import difference, draws, estimate

ONES = np.ones(400)
SINGLE = [str(n) for n in range(400)]


def normal(seed, mean=0.0, size=400):
    return np.random.default_rng(seed).normal(mean, 1, size)


def test_the_interval_holds_the_value_and_covers_the_true_mean_19_times_in_20():
    covered = 0
    for seed in range(100):
        found = estimate(normal(seed, 3.0, 100), np.ones(100), SINGLE[:100], seed=seed)
        assert found.low <= found.value <= found.high
        covered += found.low <= 3.0 <= found.high
    assert 88 <= covered <= 100


def test_the_width_is_that_of_the_normal_interval():
    values = normal(1)
    found = estimate(values, ONES, SINGLE)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_a_ratio_is_of_sums_and_questions_without_a_whole_do_not_count():
    found = estimate(np.array([1.0, 1.0, 0.0]), np.array([1.0, 3.0, 0.0]), ["a", "b", "c"])
    assert (found.value, found.count) == (0.5, 2)
    assert estimate(np.zeros(3), np.zeros(3), ["a", "b", "c"]) is None


def test_pairing_narrows_the_interval_of_correlated_questions():
    shared = normal(1)
    first, second = shared + 0.1 * normal(2), shared + 0.1 * normal(3) + 0.05
    paired = difference((first, ONES), (second, ONES), SINGLE)
    alone = estimate(first, ONES, SINGLE)
    assert paired.value == pytest.approx(second.mean() - first.mean())
    assert paired.low <= paired.value <= paired.high
    assert paired.high - paired.low < (alone.high - alone.low) / 3


def test_alike_questions_of_a_group_widen_the_interval():
    groups = [str(n // 20) for n in range(400)]
    values = np.repeat(normal(4, size=20), 20)
    grouped, single = estimate(values, ONES, groups), estimate(values, ONES, SINGLE)
    assert grouped.high - grouped.low > 3 * (single.high - single.low)


def test_every_draw_has_whole_groups():
    groups = ["first"] * 5 + [str(n // 2) for n in range(40)]
    drawn = draws(45, groups, resamples=50, seed=0)
    for name in set(groups):
        members = drawn[:, [group == name for group in groups]]
        assert (members == members[:, :1]).all()
    assert drawn.std(axis=0).min() > 0
