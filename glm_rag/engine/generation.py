"""One answer while it is computed: from prompt ids to deltas, pass by pass."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from glm_rag.engine.cache import KVCache
from glm_rag.engine.generate import PREFILL_CHUNK, decode, pass_costs
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.prompt_lookup import PromptLookup
from glm_rag.engine.running_answer import RunningAnswer
from glm_rag.engine.sampling import TokenSampler
from glm_rag.engine.tokenizer import Tokenizer
from glm_rag.types import GenerationDelta, SamplingParams, Usage

# Room made for an answer at once; a longer one makes the cache grow in steps.
EXPECTED_ANSWER = 1024
# Ids of a pass over several sequences, up to which drafts may fill it.
MOST_ROWS = 32


class Generation:
    """What the next pass of an answer computes, and what becomes of its logits.

    Whoever runs the passes, for one answer or for several at once, calls `read` until it gives
    logits, then `take` and a pass over `next_ids` in turns until `is_done`, and `close` in any
    case. Prompt and `params.max_tokens` must fit into the window.

    Drafted ids go through the model together with the last one, and each id is drawn from its
    own distribution as without drafts. The draw accepts a draft d with probability p(d), and is
    otherwise a draw from p without d: the rejection rule of speculative sampling
    (arXiv 2211.17192) for a draft that is certain. So a seed gives the same ids either way.

    Attributes:
        cache: what it holds of the prompt is not computed again.
    """

    def __init__(
        self,
        model: ChatGLM2Model,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        cache: KVCache,
    ) -> None:
        self.cache = cache
        self._model = model
        self._prompt = list(prompt_ids)
        self._cached = min(cache.common_prefix(prompt_ids), len(prompt_ids) - 1)
        cache.truncate(self._cached)
        expected = min(params.max_tokens, EXPECTED_ANSWER)
        cache.reserve(cache.num_prefix + len(prompt_ids) + expected)
        self._max_tokens = params.max_tokens
        self._sampler = TokenSampler(prompt_ids, params, tokenizer.vocab_size)
        self._lookup = PromptLookup(prompt_ids, enabled=params.speculate, costs=pass_costs(model))
        self._answer = RunningAnswer(tokenizer, params)
        self._num_given = 0
        self._last: int | None = None
        self._draft: list[int] = []

    @property
    def num_unread(self) -> int:
        """Tokens of the prompt that are not computed yet."""
        return max(len(self._prompt) - self.cache.num_tokens, 0)

    @property
    def is_done(self) -> bool:
        """Whether the last delta was given."""
        return self._answer.reason is not None

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        lookup, counts = self._lookup, (self._answer.num_tokens, self._cached)
        return Usage(len(self._prompt), *counts, lookup.drafted, lookup.accepted)

    @torch.inference_mode()
    def read(self, chunk: int = PREFILL_CHUNK) -> Tensor | None:
        """Compute up to `chunk` tokens of the prompt; behind its last one, logits `[1, V]`."""
        start = self.cache.num_tokens
        piece = self._prompt[start : start + chunk]
        hidden = self._model(torch.tensor([piece], device=self._model.device), self.cache)
        self.cache.advance(piece)
        return None if self.num_unread else self._model.logits(hidden[0, -1:])

    def next_ids(self, *, others: int = 0) -> list[int]:
        """What the next pass computes: the last id and what may follow it.

        Args:
            others: ids of other sequences in the same pass.
        """
        if self._last is None:
            raise RuntimeError("no id was taken yet")
        room = self._max_tokens - self._num_given - 1
        if others:
            room = min(room, max(MOST_ROWS - 1 - others, 0))
        self._draft = self._lookup.draft(room, others=others)
        return [self._last, *self._draft]

    def take(self, logits: Tensor) -> Generator[GenerationDelta, None, None]:
        """Deltas of the ids drawn from a pass's logits `[1 + drafts, V]`."""
        num_true = 0
        for row, guess in zip_longest(logits, self._draft):
            self._last = self._sampler.next(row)
            self._lookup.push(self._last)
            self._num_given += 1
            if delta := self._answer.push(self._last):
                yield delta
            if self.is_done:
                yield self._answer.finish(self.usage)
                return
            if self._last != guess:
                break
            num_true += 1
        self.cache.truncate(self.cache.num_tokens - (len(self._draft) - num_true))

    def close(self) -> None:
        """Leave prompt and given ids but the last in the cache."""
        kept = len(self._prompt) + max(self._num_given - 1, 0)
        self.cache.truncate(min(self.cache.num_tokens, kept))


def stream_answer(
    model: ChatGLM2Model,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    params: SamplingParams,
    cache: KVCache,
    *,
    chunk: int = PREFILL_CHUNK,
) -> Generator[GenerationDelta, None, None]:
    """Deltas of one answer alone; the last one says why it ended and what it used.

    The id that ends an answer is no part of it. Closed or exhausted, it leaves prompt and given
    ids but the last in the cache.
    """
    generation = Generation(model, tokenizer, prompt_ids, params, cache)
    try:
        logits = None
        while logits is None:
            logits = generation.read(chunk)
        yield from generation.take(logits)
        while not generation.is_done:
            logits = decode(model, generation.next_ids(), cache)
            yield from generation.take(logits)
    finally:
        generation.close()
