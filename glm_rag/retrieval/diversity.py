"""Maximal marginal relevance: passages that are good and not alike.

Carbonell & Goldstein, The Use of MMR (SIGIR 1998), with the fused score for relevance:

    next = argmax over the rest of (1 - d) * score - d * max cos(passage, those chosen)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def diverse_order(
    scores: Sequence[float], vectors: Sequence[np.ndarray], difference: float, k: int
) -> list[int]:
    """Places of the `k` passages to take, in the order they are chosen.

    Args:
        scores: best first, of the size of cosines.
        vectors: of length 1.
        difference: d, what unlikeness counts; at 0 the order stays as it is.
    """
    if not scores:
        return []
    relevance = (1 - difference) * np.asarray(scores, dtype=np.float64)
    data = np.asarray(vectors, dtype=np.float32)  # [N, dimension]
    chosen = [0]
    likeness = data @ data[0]  # to the most alike of those chosen
    while len(chosen) < min(k, len(scores)):
        gain = relevance - difference * likeness
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        likeness = np.maximum(likeness, data @ data[best])
    return chosen
