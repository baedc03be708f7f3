"""Prefill, decode, sample, stream: the loop from prompt ids to deltas."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import islice

import torch
from torch import Tensor

from glm_rag.engine.cache import KVCache
from glm_rag.engine.detokenize import AnswerStream
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.sampling import make_generator, next_token
from glm_rag.engine.tokenizer import Tokenizer
from glm_rag.types import FinishReason, GenerationDelta, SamplingParams, Usage

# Prompt tokens per forward pass: activations and the mask stay small however long the prompt is.
PREFILL_CHUNK = 512
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


def stream_tokens(
    model: ChatGLM2Model,
    prompt_ids: Sequence[int],
    params: SamplingParams,
    cache: KVCache,
    *,
    vocab_size: int,
    chunk: int = PREFILL_CHUNK,
) -> Generator[int, None, None]:
    """Sampled ids without end; what the cache already holds of the prompt is not computed.

    The cache must hold a proper prefix of the prompt. Ids from `vocab_size` on are never sampled.
    """
    source = make_generator(params.seed)
    seen = torch.tensor([i for i in set(prompt_ids) if i < vocab_size], dtype=torch.long)
    logits = prefill(model, prompt_ids[cache.num_tokens :], cache, chunk)
    while True:
        token_id = next_token(logits[:vocab_size].cpu(), params, seen, source)
        yield token_id
        seen = torch.cat([seen, torch.tensor([token_id])])
        logits = prefill(model, [token_id], cache)


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
    tokens = stream_tokens(
        model, prompt_ids, params, cache, vocab_size=tokenizer.vocab_size, chunk=chunk
    )
    answer = AnswerStream(tokenizer.decode, params.stop)
    reason: FinishReason = "length"
    num_tokens = 0
    for token_id in islice(tokens, params.max_tokens):
        if token_id in tokenizer.eos_token_ids:
            reason = "stop"
            break
        num_tokens += 1
        yield GenerationDelta(*answer.push(token_id))
        if answer.stopped:
            break
    text, ids = answer.finish()
    if answer.stopped:
        reason = "stop"
    yield GenerationDelta(text, ids, reason, Usage(len(prompt_ids), num_tokens, cached))
