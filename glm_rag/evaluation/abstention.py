"""Does a score separate the questions that can be answered from those that cannot?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Roc:
    """Points of the curve, from the highest threshold down.

    `kept`: share of answerable questions with at least the threshold's score. `wrongly_kept`:
    share of the others.
    """

    thresholds: tuple[float, ...]
    kept: tuple[float, ...]
    wrongly_kept: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions of one size: `predicted` on average, and the share that came true."""

    low: float
    high: float
    count: int
    predicted: float
    observed: float


def roc(answerable: np.ndarray, others: np.ndarray, *, points: int = 101) -> Roc:
    """The curve at `points` thresholds or fewer. Nothing found scores minus infinity."""
    scores = np.unique(np.concatenate([answerable, others]))[::-1]
    if len(scores) > points:
        scores = scores[np.linspace(0, len(scores) - 1, points).round().astype(int)]
    kept, wrong = share_kept(answerable, scores), share_kept(others, scores)
    # Strict JSON knows no infinity; the lowest score keeps everything in any case.
    finite = np.maximum(scores, -1e9)
    return Roc(
        thresholds=(*finite.tolist(),), kept=(*kept.tolist(),), wrongly_kept=(*wrong.tolist(),)
    )


def share_kept(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of `scores` that reach each threshold."""
    if not len(scores):
        return np.zeros(len(thresholds))
    below = np.searchsorted(np.sort(scores), thresholds, side="left")
    return 1 - below / len(scores)


def auc(answerable: np.ndarray, others: np.ndarray) -> float | None:
    """Chance that an answerable question scores above another one; ties count half.

    None where one side is empty.
    """
    if not len(answerable) or not len(others):
        return None
    ordered = np.sort(others)
    below = np.searchsorted(ordered, answerable, side="left")
    not_above = np.searchsorted(ordered, answerable, side="right")
    return float((below + not_above).mean() / (2 * len(others)))


def threshold_keeping(answerable: np.ndarray, share: float) -> float:
    """The highest threshold that keeps at least `share` of the scores."""
    ordered = np.sort(answerable)[::-1]
    wanted = max(1, int(np.ceil(share * len(ordered) - 1e-9)))
    return float(ordered[wanted - 1])


def reliability(
    predicted: Sequence[float], observed: Sequence[bool], *, bins: int = 10
) -> tuple[Bin, ...]:
    """Predicted probabilities in equal bins, with the share of each that came true."""
    chances, came_true = np.asarray(predicted, dtype=float), np.asarray(observed, dtype=float)
    places = np.minimum((chances * bins).astype(int), bins - 1)
    found = []
    for place in np.unique(places):
        inside = places == place
        found.append(
            Bin(
                low=int(place) / bins,
                high=(int(place) + 1) / bins,
                count=int(inside.sum()),
                predicted=float(chances[inside].mean()),
                observed=float(came_true[inside].mean()),
            )
        )
    return tuple(found)


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """Mean distance of prediction and outcome over all predictions (expected calibration error)."""
    total = sum(part.count for part in bins)
    if not total:
        return None
    return sum(part.count * abs(part.predicted - part.observed) for part in bins) / total


def brier(predicted: Sequence[float], observed: Sequence[bool]) -> float | None:
    """Mean squared distance of probability and outcome (Brier 1950); 0.25 is a coin's."""
    if not len(predicted):
        return None
    distance = np.asarray(predicted, dtype=float) - np.asarray(observed, dtype=float)
    return float((distance**2).mean())
