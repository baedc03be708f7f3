"""95 % intervals by resampling questions, for ratios of sums (a mean is one with weights 1).

Percentile bootstrap (Efron 1979). Questions of one group (an article, a document) resemble each
other, so whole groups are drawn where there are enough of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 2000
_BLOCK = 100
# Fewer groups than this say little about how groups differ: single questions are drawn.
_MIN_GROUPS = 10
_TAILS = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval. `count`: questions that it rests on."""

    value: float
    low: float
    high: float
    count: int


def estimate(
    parts: np.ndarray, wholes: np.ndarray, groups: Sequence[str], *, seed: int = 0
) -> Estimate | None:
    """Sum of `parts` over sum of `wholes`; None where there is nothing to divide by.

    Args:
        parts, wholes: `[N]`, one of each question; a question with whole 0 does not count.
        groups: of each question.
    """
    if not wholes.sum():
        return None
    values = _resampled(np.stack([parts, wholes], axis=1), groups, seed)
    low, high = np.nanpercentile(_ratio(values[:, 0], values[:, 1]), _TAILS)
    count = int(np.count_nonzero(wholes))
    return Estimate(float(parts.sum() / wholes.sum()), float(low), float(high), count)


def difference(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    groups: Sequence[str],
    *,
    seed: int = 0,
) -> Estimate | None:
    """Second ratio minus the first, over the same questions drawn for both (paired).

    Args:
        first, second: parts and wholes, `[N]` each, question by question the same.
    """
    if not first[1].sum() or not second[1].sum():
        return None
    values = _resampled(np.stack([*first, *second], axis=1), groups, seed)
    drawn = _ratio(values[:, 2], values[:, 3]) - _ratio(values[:, 0], values[:, 1])
    low, high = np.nanpercentile(drawn, _TAILS)
    value = second[0].sum() / second[1].sum() - first[0].sum() / first[1].sum()
    count = int(np.count_nonzero((first[1] != 0) & (second[1] != 0)))
    return Estimate(float(value), float(low), float(high), count)


def draws(count: int, groups: Sequence[str], resamples: int, seed: int) -> np.ndarray:
    """How often each of `count` questions is drawn, `[resamples, count]`."""
    units = _units(count, groups)
    size = int(units.max()) + 1
    chances = np.full(size, 1 / size)
    drawn: np.ndarray = np.random.default_rng(seed).multinomial(size, chances, size=resamples)
    return np.take(drawn, units, axis=1)


def _units(count: int, groups: Sequence[str]) -> np.ndarray:
    names, units = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return units if len(names) >= _MIN_GROUPS else np.arange(count)


def _resampled(columns: np.ndarray, groups: Sequence[str], seed: int) -> np.ndarray:
    """Column sums of resampled questions, `[resamples, columns]`."""
    units = _units(len(columns), groups)
    sums = np.zeros((int(units.max()) + 1, columns.shape[1]))
    np.add.at(sums, units, columns)
    generator = np.random.default_rng(seed)
    chances = np.full(len(sums), 1 / len(sums))
    blocks = [
        generator.multinomial(len(sums), chances, size=_BLOCK) @ sums
        for _ in range(_RESAMPLES // _BLOCK)
    ]
    return np.concatenate(blocks)


def _ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    ratios = np.full(len(parts), np.nan)
    np.divide(parts, wholes, out=ratios, where=wholes != 0)
    return ratios
