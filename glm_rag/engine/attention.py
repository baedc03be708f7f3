"""Multi-query attention without repeating keys and values to all query heads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import torch
from torch import unflatten
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import Tensor

    from glm_rag.engine.cache import LayerView

# Up to this many rows (heads of a group x new tokens) the heads of a group go as rows of one
# matrix product: 20 times faster than head by head when decoding at 32K tokens on a CPU.
_MAX_FOLDED_ROWS = 512
# int8 columns that are turned into floating point at a time.
_INT8_BLOCK = 1024
# Without cuDNN, which is slower to start: it plans for 40 ms whenever a length is new.
_CUDA_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attend_cached(queries: Tensor, view: LayerView, mask: Tensor | None) -> Tensor:
    """`attend` over a layer of a KV cache, whatever its storage."""
    if view.key_scales is None:
        kind = queries.dtype  # the cache may keep less than the model computes in
        return attend(queries, view.keys.to(kind), view.values.to(kind), mask)
    if queries.is_cuda and queries.dtype != torch.float32:
        # One layer in 16 bits is small there, and the library's kernels are ten times faster.
        return attend(queries, *_in_floating_point(view, queries.dtype), mask)
    return attend_int8(queries, view, mask).flatten(2)


def _in_floating_point(view: LayerView, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if view.key_scales is None or view.value_scales is None:
        raise ValueError("these keys and values have no scales")
    keys = (view.keys * view.key_scales.unsqueeze(-1)).to(dtype)
    return keys, (view.values * view.value_scales.unsqueeze(-1)).to(dtype)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of S new tokens over all T cached ones.

    Args:
        queries: `[B, S, H, D]`.
        keys, values: `[B, G, T, D]`; query head h belongs to group h // (H / G).
        mask: `[B or 1, S, T]`, True = may be seen; None: the new tokens are the last S of
            T, causal.

    Returns:
        Context `[B, S, H * D]`.
    """
    if queries.is_cuda:
        with sdpa_kernel(_CUDA_BACKENDS):
            return _attend(queries, keys, values, mask)
    return _attend(queries, keys, values, mask)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    num_new, num_heads = queries.shape[1:3]
    rows = num_new * num_heads // keys.shape[1]
    if num_new == 1 or (mask is not None and rows <= _MAX_FOLDED_ROWS):
        context = attend_folded(queries, keys, values, mask)
    elif mask is None and (queries.is_cuda or num_new < keys.shape[2]):
        context = attend_causal(queries, keys, values)
    elif queries.is_cuda:
        context = attend_expanded(queries, keys, values, mask)
    else:
        context = attend_grouped(queries, keys, values, mask)
    return context.flatten(2)


def attend_folded(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """The heads of a group as rows: one read of the keys serves all of them; `[B, S, H, D]`."""
    num_new, groups = queries.shape[1], keys.shape[1]
    by_group = unflatten(queries, 2, (groups, -1)).permute(0, 2, 3, 1, 4)  # [B, G, M, S, D]
    per_group = by_group.shape[2]
    if mask is not None:
        mask = mask.repeat(1, per_group, 1).unsqueeze(1)  # [B, 1, M*S, T]
    context = scaled_dot_product_attention(by_group.flatten(2, 3), keys, values, attn_mask=mask)
    context = unflatten(context, 2, (per_group, num_new))
    return context.permute(0, 3, 1, 2, 4).flatten(2, 3)


def attend_grouped(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """The library's grouped attention, which the CPU kernel does without copies; `[B, S, H, D]`."""
    attention = partial(scaled_dot_product_attention, enable_gqa=True, is_causal=mask is None)
    mask = None if mask is None else mask.unsqueeze(1)
    return attention(queries.transpose(1, 2), keys, values, attn_mask=mask).transpose(1, 2)


def attend_expanded(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """As `attend_grouped` for CUDA, whose masked kernels know no groups; `[B, S, H, D]`.

    A group becomes a batch entry, so that its keys broadcast to the heads by stride.
    """
    batch, groups = keys.shape[:2]
    q = unflatten(queries, 2, (groups, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1)  # [B*G, M, S, D]
    k, v = (x.flatten(0, 1).unsqueeze(1).expand(-1, q.shape[1], -1, -1) for x in (keys, values))
    if mask is not None:
        mask = mask.expand(batch, -1, -1).repeat_interleave(groups, 0).unsqueeze(1)
    context = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return unflatten(context, 0, (batch, groups)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def attend_int8(queries: Tensor, view: LayerView, mask: Tensor | None) -> Tensor:
    """Over int8 keys and values, in blocks of columns with a running softmax; `[B, S, H, D]`.

    Exact for the stored values: scales multiply scores and probabilities in float32, so only a
    block of columns is ever in floating point (arXiv 2112.05682).
    """
    key_scales, value_scales = view.key_scales, view.value_scales  # [B, G, T]
    if key_scales is None or value_scales is None:
        raise ValueError("these keys and values have no scales")
    num_new, groups = queries.shape[1], view.keys.shape[1]
    by_group = unflatten(queries, 2, (groups, -1)).permute(0, 2, 3, 1, 4)  # [B, G, M, S, D]
    rows = by_group.flatten(2, 3).float() / queries.shape[-1] ** 0.5  # [B, G, M*S, D]
    if mask is None and num_new > 1:
        total_columns = view.keys.shape[2]
        mask = torch.ones(1, num_new, total_columns, dtype=torch.bool, device=rows.device)
        mask = mask.tril(total_columns - num_new)
    lowest = torch.finfo(torch.float32).min
    peak = rows.new_full((*rows.shape[:-1], 1), lowest)
    total, context = torch.zeros_like(peak), torch.zeros_like(rows)
    for start in range(0, view.keys.shape[2], _INT8_BLOCK):
        block = slice(start, start + _INT8_BLOCK)
        scores = rows @ view.keys[:, :, block].float().mT  # [B, G, M*S, b]
        scores *= key_scales[:, :, None, block]
        if mask is not None:
            hidden = ~mask[:, None, None, :, block]  # [B, 1, 1, S, b]
            unflatten(scores, 2, (-1, num_new)).masked_fill_(hidden, lowest)
        new_peak = torch.maximum(peak, scores.amax(-1, keepdim=True))
        weights = (scores - new_peak).exp_()
        # Columns below a row's first visible one got weight 1: the factor takes them out again.
        shrink = (peak - new_peak).exp_()
        total = total * shrink + weights.sum(-1, keepdim=True)
        weights *= value_scales[:, :, None, block]
        context = context * shrink + weights @ view.values[:, :, block].float()
        peak = new_peak
    context = unflatten((context / total).to(queries.dtype), 2, (-1, num_new))
    return context.permute(0, 3, 1, 2, 4).flatten(2, 3)


def attend_causal(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The S new tokens as the last of T, with no mask in memory on CUDA; `[B, S, H, D]`.

    By flash_attn where it is installed and the device has it, else by torch's own kernels.
    """
    if flash := flash_attention(queries.device, queries.dtype):
        return flash(queries, keys.transpose(1, 2), values.transpose(1, 2), causal=True)
    batch, groups = keys.shape[:2]
    q = unflatten(queries, 2, (groups, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1)  # [B*G, M, S, D]
    k, v = (x.flatten(0, 1).unsqueeze(1).expand(-1, q.shape[1], -1, -1) for x in (keys, values))
    bias = causal_lower_right(q.shape[2], k.shape[2])
    context = scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return unflatten(context, 0, (batch, groups)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def flash_attention(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor] | None:
    """`flash_attn_func` where it can run: 16 bits, compute capability 8.0 and up."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return None
    return _flash_attn_func() if torch.cuda.get_device_capability(device) >= (8, 0) else None


@cache
def _flash_attn_func() -> Callable[..., Tensor] | None:
    try:
        from flash_attn import flash_attn_func
    except ImportError:  # also what a build for another torch raises
        return None
    found: Callable[..., Tensor] = flash_attn_func
    return found
