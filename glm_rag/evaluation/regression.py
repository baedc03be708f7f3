"""Logistic regression of a few features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Weight of the pull towards zero, per question and in units of standardised features: separable
# data would have infinite weights.
_RIDGE = 1e-3
_ITERATIONS = 50


def logistic_regression(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and intercept, by Newton's method; both classes weigh the same.

    Args:
        features: `[N, F]`. labels: `[N]`, both values present.
    """
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    x = np.column_stack([(features - centre) / scale, np.ones(len(features))])
    y = labels.astype(float)
    share = np.where(labels, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    pull = np.full(x.shape[1], _RIDGE * len(x))
    pull[-1] = 0.0

    def loss(weights: np.ndarray) -> float:
        margins = np.where(labels, 1, -1) * (x @ weights)
        return float((share * np.logaddexp(0, -margins)).sum() + (pull * weights**2).sum() / 2)

    weights = np.zeros(x.shape[1])
    for _ in range(_ITERATIONS):
        chances = 1 / (1 + np.exp(-np.clip(x @ weights, -50, 50)))
        slope = x.T @ (share * (chances - y)) + pull * weights
        curve = (x * (share * chances * (1 - chances))[:, None]).T @ x + np.diag(pull + 1e-9)
        step = np.linalg.solve(curve, slope)
        weights, done = _descend(loss, weights, step)
        if done:
            break
    original = weights[:-1] / scale
    return original, float(weights[-1] - original @ centre)


def _descend(
    loss: Callable[[np.ndarray], float], weights: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, bool]:
    """A Newton step, halved while it overshoots; whether nothing is left to gain."""
    before = loss(weights)
    for halvings in range(20):
        tried = weights - step / 2**halvings
        if loss(tried) < before - 1e-12 * abs(before):
            return tried, False
    return weights, True
