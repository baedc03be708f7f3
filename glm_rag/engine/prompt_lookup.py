"""Guesses the next tokens by copying from what was read or written before.

An answer over documents quotes them, and several tokens are verified in one pass for little
more than one (prompt lookup decoding, github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice

_NGRAMS = (3, 2)  # longest first
# How often a guess comes true before anything is known: a pair of ids has to prove itself.
_FIRST_RATES = {3: 0.45, 2: 0.3}
_MEMORY = 0.8  # weight of the past in a rate
# Draft length to the cost of its pass, in passes of one token, on two CPU cores; measured by
# benchmarks/prompt_lookup.py --rows-of. 2 or 3 rows of float32 cost no less than 4.
COSTS = {1: 1.6, 3: 1.6, 7: 1.8, 11: 2.1}
# The native kernels read the weights once for all rows.
NATIVE_COSTS = {1: 1.1, 3: 1.15, 7: 1.45, 11: 1.7, 15: 2.0}
# On an H100, in 4 bits on an H200, by benchmarks/gpu_engine.py, and a little for sampling.
GRAPH_COSTS = {1: 1.06, 3: 1.08, 7: 1.1, 15: 1.12}
QUANTIZED_GRAPH_COSTS = {1: 1.2, 3: 1.2, 7: 1.25, 15: 1.55}


class PromptLookup:
    """Token ids so far and where their n-grams stand; drafts as long as recent ones succeeded.

    How often a guess came true is counted for every token, drafted or not, so that nothing is
    spent on trials where guesses fail.

    Args:
        costs: of a pass by its draft length, in passes of one token.

    Attributes:
        drafted: tokens given out to verify. accepted: those of them that came true.
    """

    def __init__(
        self,
        token_ids: Sequence[int],
        *,
        enabled: bool = True,
        costs: Mapping[int, float] = COSTS,
    ) -> None:
        self.drafted = self.accepted = 0
        self._costs = costs
        self._enabled = enabled
        self._ids: list[int] = []
        self._followed_at: dict[tuple[int, ...], int] = {}
        self._rates = dict(_FIRST_RATES)
        self._ngram = 0
        self._guess: list[int] = []  # what the next tokens should be
        self._num_drafted = 0  # leading tokens of the guess that are being verified
        if enabled:
            for token_id in token_ids:
                self._append(token_id)

    def draft(self, most: int, *, others: int = 0) -> list[int]:
        """Up to `most` tokens that may come next; none where that would not pay.

        Args:
            others: tokens of other sequences that the same pass computes.
        """
        self._guess, self._num_drafted = [], 0
        for ngram in _NGRAMS:
            start = self._followed_at.get(tuple(self._ids[-ngram:]))
            if start is not None:
                length = min(best_length(self._rates[ngram], self._costs, others), most)
                self._ngram, self._guess = ngram, self._copy(start, length + 1)
                self._num_drafted = length
                break
        self.drafted += self._num_drafted
        return self._guess[: self._num_drafted]

    def push(self, token_id: int) -> None:
        """The token that really came next."""
        if not self._enabled:
            return
        if self._guess:
            self._judge(self._guess.pop(0) == token_id)
        self._append(token_id)

    def _copy(self, start: int, length: int) -> list[int]:
        """Ids from `start` on; at the end of what there is they go round."""
        copied = self._ids[start : start + length]
        return list(islice(cycle(copied), length))

    def _judge(self, came_true: bool) -> None:
        rate = self._rates[self._ngram]
        self._rates[self._ngram] = _MEMORY * rate + (1 - _MEMORY) * came_true
        if not came_true:
            self._guess, self._num_drafted = [], 0
        elif self._num_drafted:
            self.accepted += 1
            self._num_drafted -= 1

    def _append(self, token_id: int) -> None:
        for ngram in _NGRAMS:
            if len(self._ids) >= ngram:
                self._followed_at[tuple(self._ids[-ngram:])] = len(self._ids)
        self._ids.append(token_id)


def best_length(rate: float, costs: Mapping[int, float] = COSTS, others: int = 0) -> int:
    """Draft length with the most tokens per time, if each draft comes true at this rate.

    Args:
        others: tokens of other sequences in the pass, all of which count.
    """
    best, best_speed = 0, (1 + others) / _pass_cost(others, costs)
    for length in costs:
        given = others + sum(rate**step for step in range(length + 1))
        speed = given / _pass_cost(length + others, costs)
        if speed > best_speed:
            best, best_speed = length, speed
    return best


def _pass_cost(more: int, costs: Mapping[int, float]) -> float:
    """Cost of a pass with so many tokens besides the first; between known ones by a line."""
    points = [(0, 1.0), *sorted(costs.items())]
    at = next((i for i, (length, _) in enumerate(points) if length > more), len(points) - 1)
    (low, cost), (high, next_cost) = points[at - 1 : at + 1]
    return cost + (next_cost - cost) * (more - low) / (high - low)
