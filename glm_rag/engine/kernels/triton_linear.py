"""Products with quantized weights on a CUDA device (Triton).

Reads the layout of `glm_rag.engine.quantize` as words of 32 bits: one word holds 8 (int4) or 4
(int8) columns of one output channel, and the words of 16 channels lie side by side, so a warp
reads whole cache lines. Sums are float32. Three ways by the number of rows: few are bound by
reading the weights, some go through tensor cores while the weights are dequantized on the way,
and for many a matrix is expanded once and multiplied by torch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import linear as dense_linear

from glm_rag.engine.quantize import LANES, QuantizedTensor

# Up to here: multiply and add, without tensor cores.
FEW_ROWS = 8
# Up to here: dequantize within the product.
SOME_ROWS = 64
_WORDS_PER_STEP = 32
_CHANNELS_PER_TILE = 64
# Values of an expanded piece (256 MB in 16 bits): all of a block's matrices, a half of the output.
_EXPANDED_VALUES = 1 << 27


@triton.jit
def _values(words, column: tl.constexpr, BITS: tl.constexpr):  # noqa: ANN001, ANN202
    """float32 values q of one of the columns in each word.

    The stored bits become the mantissa of 2^23 + q: cheaper than a conversion from integers.
    """
    # int4: column j in the low nibble of byte j, column 4 + j in the high one.
    shift: tl.constexpr = 8 * (column % 4) + 4 * (column // 4)
    stored = (words >> shift) & ((1 << BITS) - 1)
    return (stored | 0x4B000000).to(tl.float32, bitcast=True) - (8388608.0 + (1 << (BITS - 1)))


@triton.jit
def few_rows_kernel(  # noqa: ANN201
    x_ptr,  # noqa: ANN001 - [M, K]
    words_ptr,  # noqa: ANN001 - int32 [N / 16, K / columns of a word, 16]
    scales_ptr,  # noqa: ANN001 - float16 [N / 16, K / GROUP, 16]
    out_ptr,  # noqa: ANN001 - [M, rows]
    num_rows,  # noqa: ANN001 - M
    channels,  # noqa: ANN001 - rows of the weight, without padding
    columns,  # noqa: ANN001 - K
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    TILE_M: tl.constexpr,
    WORDS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """All rows of x by one block of 16 channels."""
    PER_WORD: tl.constexpr = 32 // BITS
    block = tl.program_id(0).to(tl.int64)
    num_words = columns // PER_WORD
    lane = tl.arange(0, 16)
    m = tl.arange(0, TILE_M)
    w_block = words_ptr + block * num_words * 16 + lane[None, :]
    s_block = scales_ptr + block * (columns // GROUP) * 16 + lane[None, :]
    total = tl.zeros((TILE_M, WORDS, 16), dtype=tl.float32)
    for first in tl.range(0, num_words, WORDS, num_stages=STAGES):
        word = first + tl.arange(0, WORDS)
        inside = word < num_words
        words = tl.load(w_block + word[:, None] * 16, mask=inside[:, None], other=0)
        group = word * PER_WORD // GROUP
        scales = tl.load(s_block + group[:, None] * 16, mask=inside[:, None], other=0.0)
        part = tl.zeros((TILE_M, WORDS, 16), dtype=tl.float32)
        x_words = x_ptr + m[:, None] * columns + word[None, :] * PER_WORD
        known = (m < num_rows)[:, None] & inside[None, :]
        for column in tl.static_range(PER_WORD):
            x = tl.load(x_words + column, mask=known, other=0.0).to(tl.float32)
            part += x[:, :, None] * _values(words, column, BITS)[None, :, :]
        total += part * scales.to(tl.float32)[None, :, :]
    n = block * 16 + lane
    out = out_ptr + m[:, None] * channels + n[None, :]
    written = (m < num_rows)[:, None] & (n < channels)[None, :]
    tl.store(out, tl.sum(total, axis=1).to(out_ptr.dtype.element_ty), mask=written)


@triton.jit
def some_rows_kernel(  # noqa: ANN201 - arguments as above
    x_ptr,  # noqa: ANN001
    words_ptr,  # noqa: ANN001
    scales_ptr,  # noqa: ANN001
    out_ptr,  # noqa: ANN001
    num_rows,  # noqa: ANN001
    channels,  # noqa: ANN001
    columns,  # noqa: ANN001
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    WORDS: tl.constexpr,
):
    """One tile `[TILE_M, TILE_N]` of `out = x @ weight.T`, one product per column of a word."""
    PER_WORD: tl.constexpr = 32 // BITS
    m = tl.program_id(1) * TILE_M + tl.arange(0, TILE_M)
    n = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    block, lane = (n // 16).to(tl.int64), n % 16
    num_words = columns // PER_WORD
    w_columns = words_ptr + (block * num_words * 16 + lane)[None, :]
    s_columns = scales_ptr + (block * (columns // GROUP) * 16 + lane)[None, :]
    x_rows = x_ptr + m.to(tl.int64)[:, None] * columns
    total = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    for first in range(0, num_words, WORDS):
        word = first + tl.arange(0, WORDS)
        inside = (word < num_words)[:, None] & (n < channels)[None, :]
        words = tl.load(w_columns + word[:, None] * 16, mask=inside, other=0)
        group = word * PER_WORD // GROUP
        scales = tl.load(s_columns + group[:, None] * 16, mask=inside, other=0.0).to(tl.float32)
        known = (m < num_rows)[:, None] & (word < num_words)[None, :]
        for column in tl.static_range(PER_WORD):
            x = tl.load(x_rows + word[None, :] * PER_WORD + column, mask=known, other=0.0)
            w = (_values(words, column, BITS) * scales).to(x.dtype)
            total = tl.dot(x, w, total, input_precision="ieee")
    out = out_ptr + m.to(tl.int64)[:, None] * channels + n[None, :]
    written = (m < num_rows)[:, None] & (n < channels)[None, :]
    tl.store(out, total.to(out_ptr.dtype.element_ty), mask=written)


@triton.jit
def expand_kernel(  # noqa: ANN201
    words_ptr,  # noqa: ANN001
    scales_ptr,  # noqa: ANN001
    out_ptr,  # noqa: ANN001 - [N, K]
    columns,  # noqa: ANN001
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    WORDS: tl.constexpr,
):
    """The values of some words of one block of 16 channels."""
    PER_WORD: tl.constexpr = 32 // BITS
    block = tl.program_id(0).to(tl.int64)
    num_words = columns // PER_WORD
    lane = tl.arange(0, 16)
    word = tl.program_id(1) * WORDS + tl.arange(0, WORDS)
    inside = (word < num_words)[None, :]
    words = tl.load(
        words_ptr + (block * num_words + word)[None, :] * 16 + lane[:, None], mask=inside, other=0
    )
    group = block * (columns // GROUP) + word * PER_WORD // GROUP
    scales = tl.load(scales_ptr + group[None, :] * 16 + lane[:, None], mask=inside, other=0.0)
    column = tl.arange(0, PER_WORD)
    shift = 8 * (column % 4) + 4 * (column // 4)
    stored = (words[:, :, None] >> shift[None, None, :]) & ((1 << BITS) - 1)
    values = (stored - (1 << (BITS - 1))).to(tl.float32) * scales.to(tl.float32)[:, :, None]
    rows = out_ptr + (block * 16 + lane)[:, None, None] * columns
    out = rows + word[None, :, None] * PER_WORD + column[None, None, :]
    tl.store(out, values.to(out_ptr.dtype.element_ty), mask=inside[:, :, None])


def linear(x: Tensor, weight: QuantizedTensor) -> Tensor:
    """`x @ weight.T`: `[M, K]` in float16, bfloat16 or float32 to `[M, rows]` of the same dtype."""
    num_rows, columns = x.shape
    if num_rows > SOME_ROWS:
        return linear_expanded(x, weight)
    out = x.new_empty(num_rows, weight.rows)
    if not num_rows:
        return out
    words = weight.packed.view(torch.int32)  # [N / 16, words, 16]
    arguments = x.contiguous(), words, weight.scales, out, num_rows, weight.rows, columns
    kinds = {"BITS": weight.bits, "GROUP": weight.group}
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        if num_rows <= FEW_ROWS:
            few_rows_kernel[(len(words),)](*arguments, **kinds, **few_tiles(num_rows))
        else:
            grid = (triton.cdiv(weight.rows, _CHANNELS_PER_TILE),)
            some_rows_kernel[(*grid, 1)](*arguments, **kinds, **some_tiles(num_rows))
    return out


def few_tiles(num_rows: int) -> dict[str, int]:
    """Compile-time sizes of `few_rows_kernel`: a program's sums must fit into registers."""
    rows = triton.next_power_of_2(num_rows)
    words = 2 * _WORDS_PER_STEP if rows <= 2 else _WORDS_PER_STEP
    return {"TILE_M": rows, "WORDS": words, "STAGES": 3}


def some_tiles(num_rows: int) -> dict[str, int]:
    """Compile-time sizes of `some_rows_kernel`."""
    rows = max(triton.next_power_of_2(num_rows), 16)
    return {"TILE_M": rows, "TILE_N": _CHANNELS_PER_TILE, "WORDS": _WORDS_PER_STEP}


def linear_expanded(x: Tensor, weight: QuantizedTensor) -> Tensor:
    """As `linear`, through the matrix in x's dtype, a piece at a time."""
    blocks = max(1, _EXPANDED_VALUES // (LANES * weight.columns))
    parts = zip(torch.split(weight.packed, blocks), torch.split(weight.scales, blocks), strict=True)
    products = [dense_linear(x, expand(*part, weight, x.dtype)) for part in parts]
    product = products[0] if len(products) == 1 else torch.cat(products, dim=1)
    return product[:, : weight.rows]


def expand(packed: Tensor, scales: Tensor, weight: QuantizedTensor, dtype: torch.dtype) -> Tensor:
    """Some blocks of rows of a matrix as `[16 * blocks, K]`."""
    words = packed.view(torch.int32)  # [blocks, words, 16]
    out = packed.new_empty(len(words) * LANES, weight.columns, dtype=dtype)
    grid = (len(words), triton.cdiv(words.shape[1], _WORDS_PER_STEP))
    with torch.cuda.device_of(packed):  # type: ignore[no-untyped-call]
        expand_kernel[grid](
            words, scales, out, weight.columns,
            BITS=weight.bits, GROUP=weight.group, WORDS=_WORDS_PER_STEP,
        )  # fmt: skip
    return out
