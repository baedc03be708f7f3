"""Weights in 4 or 8 bits: values, scales, and the one layout that every kernel reads.

A matrix `[N, K]` lies in blocks of 16 output channels. int4: a word of 64 bytes holds 8 columns of
a block; byte `4 * lane + j` has column j in its low and column 4 + j in its high nibble. int8: a
word holds 4 columns, byte `4 * lane + j` is column j. Stored values are unsigned: q + 8 or q + 128.
Scales are half precision, one per channel and group of columns. Rows are padded to whole blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from glm_rag.errors import ConfigError

LANES = 16
WORD_BYTES = 64
GROUPS = (32, 128)
# Rows quantized at once: the working copies in float32 stay in the processor's cache.
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """A matrix `[rows, columns]` in few bits.

    Attributes:
        packed: uint8 `[ceil(rows / 16), columns * bits / 32, 64]`.
        scales: float16 `[ceil(rows / 16), columns / group, 16]`.
    """

    packed: Tensor
    scales: Tensor
    rows: int
    columns: int
    bits: int
    group: int


def packed_shapes(
    rows: int, columns: int, bits: int, group: int
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Shapes of `packed` and `scales`."""
    blocks = -(-rows // LANES)
    return (blocks, columns * bits // 32, WORD_BYTES), (blocks, columns // group, LANES)


def choose_group(columns: int, group: int) -> int:
    """The group asked for, or 32 where it does not divide the columns.

    Raises:
        ConfigError: not even 32 does.
    """
    for candidate in (group, GROUPS[0]):
        if columns % candidate == 0:
            return candidate
    raise ConfigError(f"a matrix of {columns} columns cannot be quantized in groups of {GROUPS[0]}")


def quantize(weight: Tensor, bits: int, group: int) -> QuantizedTensor:
    """Round a matrix `[N, K]` to `bits` bits, symmetric around zero, one scale per group of K.

    int4 uses all 16 values: the one of largest magnitude becomes -8, whatever its sign, so a scale
    may be negative (as in llama.cpp's Q4_0; searching scales of least squared error did not lower
    perplexity). An all-zero group stays exactly zero.
    """
    group = choose_group(weight.shape[1], group)
    parts = [_round(part.float(), bits, group) for part in torch.split(weight, _ROWS_AT_ONCE)]
    values = torch.cat([values for values, _ in parts])
    scales = torch.cat([scales for _, scales in parts])
    return pack(values, scales, bits, group)


def pack(values: Tensor, scales: Tensor, bits: int, group: int) -> QuantizedTensor:
    """Lay out values int8 `[N, K]` and scales float16 `[N, K / group]`."""
    rows, columns = values.shape
    missing = -rows % LANES
    stored = pad(values, (0, 0, 0, missing)).add(1 << (bits - 1)).to(torch.uint8)
    words = stored.view(-1, LANES, columns // (32 // bits), 32 // bits)  # [N/16, lane, word, col]
    words = words.transpose(1, 2)  # [N/16, word, lane, 4 or 8]
    if bits == 4:
        words = words[..., :4] | words[..., 4:] << 4
    packed = words.reshape(len(words), -1, WORD_BYTES).contiguous()
    by_block = pad(scales, (0, 0, 0, missing)).view(-1, LANES, columns // group)
    return QuantizedTensor(
        packed, by_block.transpose(1, 2).contiguous(), rows, columns, bits, group
    )


def unpack(weight: QuantizedTensor) -> tuple[Tensor, Tensor]:
    """Values int8 `[N, K]` and scales float16 `[N, K / group]`; the inverse of `pack`."""
    words = weight.packed.view(len(weight.packed), -1, LANES, 4)
    if weight.bits == 4:
        words = torch.cat([words & 15, words >> 4], dim=-1)
    values = (words.to(torch.int16) - (1 << (weight.bits - 1))).to(torch.int8)
    values = values.transpose(1, 2).reshape(-1, weight.columns)[: weight.rows]
    scales = weight.scales.transpose(1, 2).reshape(-1, weight.columns // weight.group)
    return values, scales[: weight.rows]


def dequantize(weight: QuantizedTensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix `[N, K]` that the stored values and scales stand for."""
    values, scales = unpack(weight)
    grouped = values.view(weight.rows, -1, weight.group).to(dtype) * scales.to(dtype).unsqueeze(-1)
    return grouped.view(weight.rows, weight.columns)


def dequantize_rows(weight: QuantizedTensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Some rows of the matrix, `[..., K]` for row numbers `[...]`: an embedding look-up."""
    flat = rows.flatten()
    block, lane = flat // LANES, flat % LANES
    words = weight.packed.view(len(weight.packed), -1, LANES, 4)[block, :, lane]  # [R, word, 4]
    if weight.bits == 4:
        words = torch.cat([words & 15, words >> 4], dim=-1)
    values = words.reshape(len(flat), -1, weight.group).to(dtype) - (1 << (weight.bits - 1))
    scales = weight.scales[block, :, lane].to(dtype)  # [R, K / group]
    return (values * scales.unsqueeze(-1)).view(*rows.shape, weight.columns)


def from_official(weight: Tensor, scale: Tensor, bits: int) -> QuantizedTensor:
    """A matrix of a published int4 or int8 checkpoint, value for value.

    Args:
        weight: int8 `[N, K * bits / 8]`; int4 has the even column in the high nibble.
        scale: float16 `[N]`, one per row; here it is repeated for every group.
    """
    values = weight.view(torch.int8)
    if bits == 4:
        high, low = values >> 4, (values << 4) >> 4
        values = torch.stack([high, low], dim=-1).flatten(1)
    group = choose_group(values.shape[1], GROUPS[-1])
    scales = scale.to(torch.float16).unsqueeze(1).expand(-1, values.shape[1] // group)
    return pack(values, scales, bits, group)


def _round(weight: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Values int8 `[N, K]` and scales float16 `[N, K / group]` of a matrix in float32."""
    grouped = weight.view(len(weight), -1, group)  # [N, K/G, G]
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if bits == 8:
        scale = (grouped.abs().amax(-1) / high).half()
        return _divide(grouped, scale, -high, high).flatten(1), scale
    extreme = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True)).squeeze(-1)
    scale = (extreme / low).half()
    return _divide(grouped, scale, low, high).flatten(1), scale


def _divide(grouped: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    inverse = torch.where(scale == 0, 0.0, 1 / scale.float())
    return (grouped * inverse.unsqueeze(-1)).round().clamp(low, high).to(torch.int8)
