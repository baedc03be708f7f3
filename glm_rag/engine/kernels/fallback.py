"""Products with quantized weights in plain torch: slow, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from glm_rag.engine.quantize import LANES, QuantizedTensor

# Values expanded at once, so that a matrix never exists in full beside its bits: what stays in a
# CPU's cache (4 MB in float32), and enough to fill a GPU.
_VALUES_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 24}


def linear(x: Tensor, weight: QuantizedTensor) -> Tensor:
    """`x @ weight.T`: `[M, K]` to `[M, rows]` of the same dtype; float32 within on a CPU."""
    dtype = x.dtype if x.is_cuda else torch.float32
    inputs = x.to(dtype)
    blocks = max(1, _VALUES_AT_ONCE[x.device.type] // (LANES * weight.columns))
    parts = zip(torch.split(weight.packed, blocks), torch.split(weight.scales, blocks), strict=True)
    products = [inputs @ _expand(*part, weight, dtype).T for part in parts]
    return torch.cat(products, dim=1)[:, : weight.rows].to(x.dtype)


def _expand(packed: Tensor, scales: Tensor, weight: QuantizedTensor, dtype: torch.dtype) -> Tensor:
    """Some blocks of rows as a matrix `[16 * blocks, K]`, in few passes over memory."""
    words = packed.view(torch.int32).transpose(1, 2).contiguous()  # [blocks, lane, word]
    stored = words.view(torch.uint8).view(len(packed) * LANES, -1, 4)
    if weight.bits == 4:
        stored = torch.stack([stored & 15, stored >> 4], dim=2)
    grouped = stored.view(len(stored), -1, weight.group).to(dtype).sub_(1 << (weight.bits - 1))
    by_row = scales.transpose(1, 2).reshape(len(stored), -1, 1).to(dtype)
    return grouped.mul_(by_row).view(len(stored), weight.columns)
