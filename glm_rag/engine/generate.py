"""Passes through the network: reading a prompt, the next tokens of one or several sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from glm_rag.engine.cache import KVCache
from glm_rag.engine.decode_graph import ROW_COUNTS, DecodeGraphs, StepRow, step_rows
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.prompt_lookup import (
    COSTS,
    GRAPH_COSTS,
    NATIVE_COSTS,
    QUANTIZED_GRAPH_COSTS,
)

# Prompt tokens per forward pass: activations and the mask stay small however long the prompt is.
PREFILL_CHUNK = 512
# A GPU needs more at once to be busy, and to make the expansion of quantized weights worth it.
CUDA_PREFILL_CHUNK = 2048


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


def decode(model: ChatGLM2Model, token_ids: Sequence[int], cache: KVCache) -> Tensor:
    """Logits `[S, V]` after each of a few new tokens, in one pass."""
    return decode_together(model, [(token_ids, cache)])


@torch.inference_mode()
def decode_together(
    model: ChatGLM2Model, shares: Sequence[tuple[Sequence[int], KVCache]]
) -> Tensor:
    """Logits `[R, V]` after each of a few new tokens of several sequences, in one pass.

    Each weight is read once for all of them. What a sequence gets does not depend on the others,
    but for the rounding of products of several rows.
    """
    if model.graphs is not None:
        logits = _replay(model.graphs, shares)
    else:
        flat = [token_id for token_ids, _ in shares for token_id in token_ids]
        counts = [(len(token_ids), cache) for token_ids, cache in shares]
        hidden = model.read_together(torch.tensor([flat], device=model.device), counts)
        logits = model.logits(hidden[0])
    for token_ids, cache in shares:
        cache.advance(token_ids)
    return logits


def _replay(graphs: DecodeGraphs, shares: Sequence[tuple[Sequence[int], KVCache]]) -> Tensor:
    rows: list[StepRow] = []
    for token_ids, cache in shares:
        cache.reserve(cache.length + len(token_ids))
        rows += step_rows(token_ids, cache)
    most, kind = ROW_COUNTS[-1], shares[0][1].dtype
    passes = [graphs.decode(rows[at : at + most], kind) for at in range(0, len(rows), most)]
    return torch.cat(passes)


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


def pass_costs(model: ChatGLM2Model) -> Mapping[int, float]:
    """What verifying drafts costs on this model's kernels, for `PromptLookup`."""
    if model.graphs is not None:
        return GRAPH_COSTS if model.backend is None else QUANTIZED_GRAPH_COSTS
    return COSTS if model.native is None else NATIVE_COSTS
