"""Several answers at once: each weight is read once per step for all rows."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glm_rag.engine.cache import KVCache
from glm_rag.engine.decode_graph import ROW_COUNTS, StepRow
from glm_rag.engine.generate import EXPECTED_ANSWER, PREFILL_CHUNK, prefill
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.running_answer import RunningAnswer
from glm_rag.engine.sampling import TokenSampler
from glm_rag.engine.tokenizer import Tokenizer
from glm_rag.types import GenerationDelta, SamplingParams, Usage


@dataclass(slots=True)
class _Row:
    """One answer of the batch.

    `position` is that of its next token; its tokens begin at column `start` of the cache.
    """

    number: int
    prompt_length: int
    position: int
    start: int
    sampler: TokenSampler
    answer: RunningAnswer

    def finish(self) -> GenerationDelta:
        return self.answer.finish(Usage(self.prompt_length, self.answer.num_tokens))


def stream_batch(
    model: ChatGLM2Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
    *,
    chunk: int = PREFILL_CHUNK,
) -> Generator[tuple[int, GenerationDelta], None, None]:
    """Deltas of several answers with the number of their prompt; as `stream_answer` for each.

    Prompts are read one after another, without padding, and then decoded together, aligned at
    their ends. A finished row leaves the batch. Nothing is drafted: the rows share the pass that
    drafts would fill.
    """
    longest = max(len(prompt) for prompt in prompts)
    rows = [
        _Row(
            number,
            prompt_length=len(prompt),
            position=len(prompt),
            start=longest - len(prompt),
            sampler=TokenSampler(prompt, own, tokenizer.vocab_size),
            answer=RunningAnswer(tokenizer, own),
        )
        for number, (prompt, own) in enumerate(zip(prompts, params, strict=True))
    ]
    expected = min(max(own.max_tokens for own in params), EXPECTED_ANSWER)
    cache, real, logits = _read(model, prompts, expected, chunk)
    while True:
        staying: list[int] = []
        tokens: list[int] = []
        for at, row in enumerate(rows):
            token_id = row.sampler.next(logits[at])
            if delta := row.answer.push(token_id):
                yield row.number, delta
            if row.answer.reason:
                yield row.number, row.finish()
            else:
                staying.append(at)
                tokens.append(token_id)
        if not staying:
            return
        if len(staying) < len(rows):
            rows = [rows[at] for at in staying]
            cache.keep_rows(staying)
            real = real[staying]
        real = torch.cat([real, real.new_ones(len(rows), 1)], dim=1)
        logits = _step(model, tokens, rows, cache, real)
        for row in rows:
            row.position += 1


def _read(
    model: ChatGLM2Model, prompts: Sequence[Sequence[int]], expected: int, chunk: int
) -> tuple[KVCache, Tensor, Tensor]:
    """The prompts in one cache, which of its columns are real `[B, T]`, and logits `[B, V]`."""
    longest = max(len(prompt) for prompt in prompts)
    cache = model.new_cache(batch_size=len(prompts))
    cache.reserve(cache.num_prefix + longest + expected)
    real = torch.zeros(len(prompts), longest, dtype=torch.bool, device=model.device)
    logits = []
    for row, prompt in enumerate(prompts):
        own = model.new_cache(capacity=cache.num_prefix + len(prompt))
        logits.append(prefill(model, prompt, own, chunk))
        cache.put_row(row, own, end=cache.num_prefix + longest)
        real[row, longest - len(prompt) :] = True
    cache.advance([0] * longest)
    return cache, real, torch.stack(logits)


@torch.inference_mode()
def _step(
    model: ChatGLM2Model, tokens: list[int], rows: list[_Row], cache: KVCache, real: Tensor
) -> Tensor:
    """One new token for every row; logits `[B, V]`."""
    if model.graphs is not None and len(rows) <= ROW_COUNTS[-1]:
        column = cache.length
        cache.reserve(column + 1)
        new = [
            StepRow(token, row.position, sequence, column, cache.num_prefix + row.start)
            for sequence, (token, row) in enumerate(zip(tokens, rows, strict=True))
        ]
        logits = model.graphs.decode(new, cache)
        cache.advance([0])
        return logits
    token_ids = torch.tensor(tokens, device=model.device).unsqueeze(1)
    places = torch.tensor([row.position for row in rows], device=model.device).unsqueeze(1)
    # Without padding no mask is needed, and attention is faster without one.
    padded = None if bool(real.all()) else real
    hidden = model(token_ids, cache, positions=places, real=padded)  # [B, 1, hidden]
    cache.advance([0])
    return model.logits(hidden[:, -1])
