"""Products with quantized weights on a CUDA device, dequantized on the way (Triton).

Reads the layout of `glm_rag.engine.quantize` as words of 32 bits: one word holds 8 (int4) or 4
(int8) columns of one output channel, and the words of 16 channels lie side by side, so a warp
reads whole cache lines. Sums are float32. Tested on a CPU alone: its numbers by the interpreter
(but for bfloat16 in the tensor-core branch, which it gets wrong), and by compiling for sm_75 to
sm_90. It never ran on a GPU, and its tile sizes were never tuned.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from glm_rag.engine.quantize import QuantizedTensor

# Up to here a product is bound by reading the weights: multiply and add, without tensor cores.
FEW_ROWS = 4
_COLUMNS_PER_STEP = 64
_CHANNELS = {True: 32, False: 64}
_MAX_TILE_ROWS = 64


@triton.jit
def _unpack(words, BITS: tl.constexpr):  # noqa: ANN001, ANN202 - Triton reads the annotations
    """Stored values `[N, W]` as int32, 32 / BITS columns each, to q of `[N, W, columns]`."""
    column = tl.arange(0, 32 // BITS)
    # int4: column j in the low nibble of byte j, column 4 + j in the high one.
    shift = 8 * (column % 4) + 4 * (column // 4)
    stored = (words[:, :, None] >> shift[None, None, :]) & ((1 << BITS) - 1)
    return stored - (1 << (BITS - 1))


@triton.jit
def linear_kernel(  # noqa: ANN201
    x_ptr,  # noqa: ANN001 - [M, K]
    words_ptr,  # noqa: ANN001 - int32 [N / 16, K / columns of a word, 16]
    scales_ptr,  # noqa: ANN001 - float16 [N / 16, K / GROUP, 16]
    out_ptr,  # noqa: ANN001 - [M, rows]
    num_rows,  # noqa: ANN001 - M
    channels,  # noqa: ANN001 - rows of the weight, without padding
    columns,  # noqa: ANN001 - K
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    FEW: tl.constexpr,  # multiply and add instead of tensor cores
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
):
    """One tile `[TILE_M, TILE_N]` of `out = x @ weight.T`."""
    PER_WORD: tl.constexpr = 32 // BITS
    m = tl.program_id(1) * TILE_M + tl.arange(0, TILE_M)
    n = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    block, lane = n // 16, n % 16
    num_words = columns // PER_WORD
    x_rows = x_ptr + m.to(tl.int64)[:, None] * columns
    w_rows = words_ptr + (block * num_words * 16 + lane)[:, None]
    s_rows = scales_ptr + (block * (columns // GROUP) * 16 + lane)[:, None]
    total = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    for first in range(0, columns, TILE_K):
        word = first // PER_WORD + tl.arange(0, TILE_K // PER_WORD)
        inside = (n < channels)[:, None] & (word < num_words)[None, :]
        words = tl.load(w_rows + word[None, :] * 16, mask=inside, other=0)
        group = word * PER_WORD // GROUP
        scales = tl.load(s_rows + group[None, :] * 16, mask=inside, other=0.0).to(tl.float32)
        w = _unpack(words, BITS).to(tl.float32) * scales[:, :, None]
        w = tl.reshape(w, (TILE_N, TILE_K))
        k = first + tl.arange(0, TILE_K)
        known = (m < num_rows)[:, None] & (k < columns)[None, :]
        x = tl.load(x_rows + k[None, :], mask=known, other=0.0)
        if FEW:
            total += tl.sum(x.to(tl.float32)[:, None, :] * w[None, :, :], axis=2)
        else:
            total = tl.dot(x, tl.trans(w.to(x.dtype)), total, input_precision="ieee")
    out = out_ptr + m.to(tl.int64)[:, None] * channels + n[None, :]
    written = (m < num_rows)[:, None] & (n < channels)[None, :]
    tl.store(out, total.to(out_ptr.dtype.element_ty), mask=written)


def tiles(num_rows: int) -> dict[str, Any]:
    """The kernel's compile-time sizes for M rows."""
    few = num_rows <= FEW_ROWS
    tile = triton.next_power_of_2(num_rows)
    return {
        "FEW": few,
        "TILE_M": tile if few else min(max(tile, 16), _MAX_TILE_ROWS),
        "TILE_N": _CHANNELS[few],
        "TILE_K": _COLUMNS_PER_STEP,
    }


def linear(x: Tensor, weight: QuantizedTensor) -> Tensor:
    """`x @ weight.T`: `[M, K]` in float16, bfloat16 or float32 to `[M, rows]` of the same dtype."""
    num_rows, columns = x.shape
    out = x.new_empty(num_rows, weight.rows)
    if not num_rows:
        return out
    sizes = tiles(num_rows)
    grid = (triton.cdiv(weight.rows, sizes["TILE_N"]), triton.cdiv(num_rows, sizes["TILE_M"]))
    words = weight.packed.view(torch.int32)  # [N / 16, words, 16]
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        linear_kernel[grid](
            x.contiguous(), words, weight.scales, out, num_rows, weight.rows, columns,
            BITS=weight.bits, GROUP=weight.group, **sizes,
        )  # fmt: skip
    return out
