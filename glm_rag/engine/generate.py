"""Prefill, decode, sample, stream: the loop from prompt ids to deltas."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from itertools import zip_longest

import torch
from torch import Tensor

from glm_rag.engine.cache import KVCache
from glm_rag.engine.decode_graph import ROW_COUNTS, StepRow
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.prompt_lookup import (
    COSTS,
    GRAPH_COSTS,
    NATIVE_COSTS,
    QUANTIZED_GRAPH_COSTS,
    PromptLookup,
)
from glm_rag.engine.running_answer import RunningAnswer
from glm_rag.engine.sampling import TokenSampler
from glm_rag.engine.tokenizer import Tokenizer
from glm_rag.types import GenerationDelta, SamplingParams, Usage

# Prompt tokens per forward pass: activations and the mask stay small however long the prompt is.
PREFILL_CHUNK = 512
# A GPU needs more at once to be busy, and to make the expansion of quantized weights worth it.
CUDA_PREFILL_CHUNK = 2048
# Room made for an answer at once; a longer one makes the cache grow in steps.
EXPECTED_ANSWER = 1024


@torch.inference_mode()
def prefill(
    model: ChatGLM2Model, token_ids: Sequence[int], cache: KVCache, chunk: int = PREFILL_CHUNK
) -> Tensor:
    """Run tokens through the model in chunks; logits `[V]` of the last one."""
    hidden = torch.empty(0)
    for start in range(0, len(token_ids), chunk):
        piece = token_ids[start : start + chunk]
        hidden = model(torch.tensor([piece], device=model.device), cache)
        cache.advance(piece)
    return model.logits(hidden[0, -1])


@torch.inference_mode()
def all_logits(
    model: ChatGLM2Model, token_ids: Sequence[int], chunk: int = PREFILL_CHUNK
) -> Tensor:
    """Logits `[S, V]` at every position, float32."""
    cache = model.new_cache(capacity=len(token_ids))
    rows = []
    for start in range(0, len(token_ids), chunk):
        piece = token_ids[start : start + chunk]
        rows.append(model.logits(model(torch.tensor([piece], device=model.device), cache)[0]))
        cache.advance(piece)
    return torch.cat(rows)


@torch.inference_mode()
def decode(model: ChatGLM2Model, token_ids: Sequence[int], cache: KVCache) -> Tensor:
    """Logits `[S, V]` after each of a few new tokens, in one pass."""
    if model.graphs is not None and len(token_ids) <= ROW_COUNTS[-1]:
        position, column, start = cache.num_tokens, cache.length, cache.num_prefix
        cache.reserve(column + len(token_ids))
        rows = [
            StepRow(token, position + i, 0, column + i, start) for i, token in enumerate(token_ids)
        ]
        logits = model.graphs.decode(rows, cache)
        cache.advance(token_ids)
        return logits
    hidden = model(torch.tensor([token_ids], device=model.device), cache)
    cache.advance(token_ids)
    return model.logits(hidden[0])


@torch.inference_mode()
def mean_log_probability(
    model: ChatGLM2Model,
    prompt_ids: Sequence[int],
    continuation_ids: Sequence[int],
    cache: KVCache,
    chunk: int = PREFILL_CHUNK,
) -> float:
    """Mean log-probability of the continuation's tokens; what the cache holds is not computed.

    Leaves the prompt and all of the continuation but its last token in the cache.
    """
    cache.truncate(min(cache.common_prefix(prompt_ids), len(prompt_ids) - 1))
    cache.reserve(cache.num_prefix + len(prompt_ids) + len(continuation_ids))
    rows = [prefill(model, prompt_ids[cache.num_tokens :], cache, chunk).unsqueeze(0)]  # [1, V]
    given = continuation_ids[:-1]
    for start in range(0, len(given), chunk):
        rows.append(decode(model, given[start : start + chunk], cache))
    logits = torch.cat(rows).float()  # [S, V]
    wanted = torch.tensor(continuation_ids, device=logits.device).unsqueeze(1)
    return float(logits.log_softmax(-1).gather(1, wanted).mean())


def stream_tokens(
    model: ChatGLM2Model,
    prompt_ids: Sequence[int],
    params: SamplingParams,
    cache: KVCache,
    *,
    vocab_size: int,
    lookup: PromptLookup,
    chunk: int = PREFILL_CHUNK,
) -> Generator[int, None, None]:
    """`params.max_tokens` sampled ids; what the cache already holds of the prompt is not computed.

    The cache must hold a proper prefix of the prompt. Ids from `vocab_size` on are never sampled.

    Drafted ids go through the model together with the last one, and each id is drawn from its
    own distribution as without drafts. The draw accepts a draft d with probability p(d), and is
    otherwise a draw from p without d: the rejection rule of speculative sampling
    (arXiv 2211.17192) for a draft that is certain. So a seed gives the same ids either way.

    Closed or exhausted, it leaves prompt and given ids but the last in the cache.
    """
    sampler = TokenSampler(prompt_ids, params, vocab_size)
    num_given = 0
    draft: list[int] = []
    try:
        logits = prefill(model, prompt_ids[cache.num_tokens :], cache, chunk).unsqueeze(0)
        while True:
            num_true = 0
            for row, guess in zip_longest(logits, draft):
                token_id = sampler.next(row)
                lookup.push(token_id)
                num_given += 1
                yield token_id
                if token_id != guess:
                    break
                num_true += 1
            if num_given == params.max_tokens:
                return
            cache.truncate(cache.num_tokens - (len(draft) - num_true))
            draft = lookup.draft(params.max_tokens - num_given - 1)
            logits = decode(model, [token_id, *draft], cache)
    finally:
        kept = len(prompt_ids) + max(num_given - 1, 0)
        cache.truncate(min(cache.num_tokens, kept))


def pass_costs(model: ChatGLM2Model) -> Mapping[int, float]:
    """What verifying drafts costs on this model's kernels, for `PromptLookup`."""
    if model.graphs is not None:
        return GRAPH_COSTS if model.backend is None else QUANTIZED_GRAPH_COSTS
    return COSTS if model.native is None else NATIVE_COSTS


def stream_answer(
    model: ChatGLM2Model,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    params: SamplingParams,
    cache: KVCache | None,
    *,
    chunk: int = PREFILL_CHUNK,
) -> Generator[GenerationDelta, None, None]:
    """Deltas of one answer; the last one says why it ended and what it used.

    The id that ends an answer is no part of it. Prompt and `params.max_tokens` must fit.
    """
    if cache is None:
        cache = model.new_cache()
    cached = min(cache.common_prefix(prompt_ids), len(prompt_ids) - 1)
    cache.truncate(cached)
    expected = min(params.max_tokens, EXPECTED_ANSWER)
    cache.reserve(cache.num_prefix + len(prompt_ids) + expected)
    lookup = PromptLookup(prompt_ids, enabled=params.speculate, costs=pass_costs(model))
    answer = RunningAnswer(tokenizer, params)
    tokens = stream_tokens(
        model,
        prompt_ids,
        params,
        cache,
        vocab_size=tokenizer.vocab_size,
        lookup=lookup,
        chunk=chunk,
    )
    with closing(tokens):
        for token_id in tokens:
            if delta := answer.push(token_id):
                yield delta
            if answer.reason:
                break
    counts = (answer.num_tokens, cached, lookup.drafted, lookup.accepted)
    yield answer.finish(Usage(len(prompt_ids), *counts))
