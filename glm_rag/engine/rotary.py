"""Rotary position encoding (arXiv 2104.09864): adjacent pairs, first part of each head."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from glm_rag.engine.config import ModelConfig

RopeTable = Literal["float32", "checkpoint"]


def rotary_table(config: ModelConfig, table: RopeTable, model_dtype: torch.dtype) -> Tensor:
    """Cosines and sines of all positions, `[seq_length, rotary_dim / 2, 2]`, on the CPU.

    angle(p, j) = p / position_divisor * rope_theta^(-2j / rotary_dim). `float32` is computed and
    stored in float32. `checkpoint` repeats the rounding of the published code, which stores the
    table in the model's dtype. ChatGLM2's also forms positions, frequencies and angles in it;
    ChatGLM3's does that in float32, because a scaled base overflows float16.
    """
    stored = torch.float32 if table == "float32" else model_dtype
    dtype = stored if config.rope_mode == "interpolate" else torch.float32
    size = config.rotary_dim
    exponents = torch.arange(0, size, 2, dtype=dtype) / size
    frequencies = 1.0 / config.rope_theta**exponents
    positions = torch.arange(config.seq_length, dtype=dtype) / config.position_divisor
    angles = torch.outer(positions, frequencies).float()
    return torch.stack([angles.cos(), angles.sin()], dim=-1).to(stored)


def rotate(x: Tensor, cos_sin: Tensor) -> Tensor:
    """Rotate the first dimensions of each head; the others pass through.

    Args:
        x: queries or keys, `[B, S, heads, D]`.
        cos_sin: rows of the table for their positions, `[B or 1, S, R / 2, 2]`.
    """
    size = 2 * cos_sin.shape[-2]
    pairs = torch.unflatten(x[..., :size], -1, (-1, 2))  # [B, S, heads, R/2, 2]
    cos, sin = cos_sin.unsqueeze(-3).unbind(-1)
    first, second = pairs.unbind(-1)
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.flatten(-2).to(x.dtype), x[..., size:]], dim=-1)
