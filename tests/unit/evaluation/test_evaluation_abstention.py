"""ROC, thresholds and reliability of scores whose separation is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_rag.evaluation.abstention import (
    auc,
    brier,
    calibration_error,
    reliability,
    roc,
    share_kept,
    threshold_keeping,
)

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=30).map(lambda s: np.array(s, float))


def test_auc_of_perfect_random_and_inverted_scores():
    low, high = np.arange(10.0), np.arange(10.0) + 20
    assert auc(high, low) == 1
    assert auc(low, high) == 0
    assert auc(low, low) == 0.5
    drawn = np.random.default_rng(0).normal(size=(2, 4000))
    assert auc(*drawn) == pytest.approx(0.5, abs=0.02)
    assert auc(low, np.array([])) is None


@given(SCORES, SCORES)
def test_auc_counts_pairs_with_ties_as_half(answerable, others):
    pairs = [(a > b) + (a == b) / 2 for a in answerable for b in others]
    assert auc(answerable, others) == pytest.approx(np.mean(pairs))
    assert auc(others, answerable) == pytest.approx(1 - np.mean(pairs))


@given(SCORES, SCORES)
def test_the_curve_rises_to_everything_and_its_area_is_the_auc(answerable, others):
    curve = roc(answerable, others)
    x, y = (0, *curve.wrongly_kept), (0, *curve.kept)
    assert (x[-1], y[-1]) == (1, 1)
    assert list(x) == sorted(x)
    assert list(y) == sorted(y)
    assert np.trapezoid(y, x) == pytest.approx(auc(answerable, others))


def test_a_long_curve_is_thinned_and_nothing_found_is_a_finite_threshold():
    scores = np.append(np.linspace(0, 1, 5000), -np.inf)
    curve = roc(scores, scores)
    assert len(curve.thresholds) == 101
    assert np.isfinite(curve.thresholds).all()


@given(SCORES, st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_the_threshold_is_the_highest_that_keeps_the_share(scores, share):
    threshold = threshold_keeping(scores, share)
    kept, with_higher = share_kept(scores, np.array([threshold, threshold + 1e-6]))
    assert kept >= share - 1e-9
    assert with_higher < share


def test_reliability_by_hand():
    predicted, observed = [0.05, 0.05, 0.95, 0.85, 1.0], [False, True, True, True, True]
    bins = reliability(predicted, observed)
    assert [(b.low, b.count, b.observed) for b in bins] == [(0, 2, 0.5), (0.8, 1, 1), (0.9, 2, 1)]
    assert bins[2].predicted == pytest.approx(0.975)
    assert calibration_error(bins) == pytest.approx((2 * 0.45 + 0.15 + 2 * 0.025) / 5)
    assert brier(predicted, observed) == pytest.approx((0.05**2 * 2 + 0.95**2 + 0.15**2) / 5)


def test_probabilities_that_are_true_have_a_small_error():
    generator = np.random.default_rng(0)
    chances = generator.uniform(size=20_000)
    came_true = generator.uniform(size=20_000) < chances
    assert calibration_error(reliability(chances, came_true)) < 0.02
    assert calibration_error(reliability(chances**3, came_true)) > 0.1


def test_no_predictions_have_no_figures():
    assert reliability([], []) == ()
    assert calibration_error(()) is None
    assert brier([], []) is None
