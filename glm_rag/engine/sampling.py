"""From logits to the next id: small pure functions, composed in the order of transformers.

The published model's sampler is temperature, top-k, top-p; a repetition penalty acts before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glm_rag.errors import ConfigError, GenerationError
from glm_rag.types import SamplingParams

# Below this temperature only ties are left to chance, and the division overflows.
_GREEDY_BELOW = 1e-5
_LARGEST_SCORE = 1e30  # what an extreme penalty leaves must stay finite when divided
_LARGEST_SEED = 2**64 - 1


def penalize_repetition(logits: Tensor, seen_ids: Tensor, penalty: float) -> Tensor:
    """Divide positive and multiply negative logits of seen ids (CTRL, arXiv 1909.05858)."""
    scores = logits[seen_ids]
    scores = torch.where(scores < 0, scores * penalty, scores / penalty)
    return logits.scatter(0, seen_ids, scores)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Flatten (above 1) or sharpen (below 1) the distribution."""
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits and what ties with the last; the rest becomes -inf."""
    if k >= len(logits):
        return logits
    smallest = logits.topk(k).values[-1]
    return logits.masked_fill(logits < smallest, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the most likely ids that reach probability mass p, at least one."""
    candidates = (logits > float("-inf")).nonzero().squeeze(1)
    ascending, order = logits[candidates].sort()
    surplus = ascending.softmax(0).cumsum(0) <= 1 - p
    surplus[-1] = False
    return logits.index_fill(0, candidates[order[surplus]], float("-inf"))


def warp(logits: Tensor, params: SamplingParams) -> Tensor:
    """Temperature, top-k and top-p, each where it is on."""
    logits = apply_temperature(logits, params.temperature)
    if params.top_k:
        logits = keep_top_k(logits, params.top_k)
    if params.top_p < 1:
        logits = keep_top_p(logits, params.top_p)
    return logits


def next_token(
    logits: Tensor,  # [V] float32 on the CPU, ids that may be sampled only
    params: SamplingParams,
    seen_ids: Tensor,
    generator: torch.Generator | None,
) -> int:
    """Choose one id: the best one at temperature 0 (and next to it), else a draw.

    Raises:
        GenerationError: the logits are NaN or infinite.
    """
    lowest, highest = logits.aminmax()  # NaN if any is; five times faster than looking at each
    if not bool(lowest.isfinite() & highest.isfinite()):
        raise GenerationError(
            "the model computed NaN or infinite logits: try dtype float32 or bfloat16, "
            "or fetch the checkpoint again"
        )
    if params.repetition_penalty != 1:
        logits = penalize_repetition(logits, seen_ids, params.repetition_penalty)
        logits = logits.clamp(-_LARGEST_SCORE, _LARGEST_SCORE)
    if params.temperature < _GREEDY_BELOW:
        return int(logits.argmax())
    # A draw costs a random number for each id: there are some 50 left of 50,000.
    candidates = _possible(logits, params)
    scores = warp(logits[candidates], params)
    return int(candidates[scores.softmax(0).multinomial(1, generator=generator)])


def _possible(logits: Tensor, params: SamplingParams) -> Tensor:
    """Ids that top-k leaves; top-p needs no more than those to find its own."""
    if not 0 < params.top_k < len(logits):
        return torch.arange(len(logits))
    return (logits >= logits.topk(params.top_k).values[-1]).nonzero().squeeze(1)


def make_generator(seed: int | None) -> torch.Generator:
    """A random source of its own per answer, so that one seed always gives one text.

    Raises:
        ConfigError: the seed is below 0 or above 2^64 - 1.
    """
    generator = torch.Generator()
    if seed is not None and not 0 <= seed <= _LARGEST_SEED:
        raise ConfigError(f"seed must be from 0 to {_LARGEST_SEED}, got {seed}")
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


class TokenSampler:
    """Chooses the ids of one answer; remembers what was seen, and has its own random source."""

    def __init__(self, prompt_ids: Sequence[int], params: SamplingParams, vocab_size: int) -> None:
        self._params = params
        self._vocab_size = vocab_size
        self._source = make_generator(params.seed)
        # Ids that are never sampled need no penalty and have no place in the logits.
        known = [token_id for token_id in set(prompt_ids) if token_id < vocab_size]
        self._seen = torch.tensor(known, dtype=torch.long)

    def next(self, logits: Tensor) -> int:
        """The next id, from logits `[padded V]` on any device."""
        usable = logits[: self._vocab_size].cpu()
        token_id = next_token(usable, self._params, self._seen, self._source)
        self._seen = torch.cat([self._seen, torch.tensor([token_id])])
        return token_id
