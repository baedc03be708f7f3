"""Figures of one ranked list. `relevance` says of each place, best first, whether it is right."""

from __future__ import annotations

import math
from collections.abc import Sequence


def hit(relevance: Sequence[bool], k: int) -> float:
    """1 if something right is among the first `k`."""
    return float(any(relevance[:k]))


def reciprocal_rank(relevance: Sequence[bool], k: int) -> float:
    """1 / place of the first right one among the first `k`, 0 without one."""
    return next((1 / place for place, right in enumerate(relevance[:k], start=1) if right), 0.0)


def ndcg(relevance: Sequence[bool], k: int) -> float:
    """Normalised discounted cumulative gain at `k` (Järvelin & Kekäläinen 2002), gains 0 and 1.

    The best possible order is that of the right ones in the whole list, first: how many there
    are elsewhere in the knowledge base is not known.
    """
    best = _gain(sorted(relevance, reverse=True)[:k])
    return _gain(relevance[:k]) / best if best else 0.0


def _gain(relevance: Sequence[bool]) -> float:
    return sum(1 / math.log2(place + 1) for place, right in enumerate(relevance, 1) if right)
