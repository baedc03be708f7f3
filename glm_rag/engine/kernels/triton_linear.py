"""Products with quantized weights on a CUDA device (Triton).

Reads the layout of `glm_rag.engine.quantize` as words of 32 bits: one word holds 8 (int4) or 4
(int8) columns of one output channel, and the words of 16 channels lie side by side, so a warp
reads whole cache lines. Sums are float32. Three ways by the number of rows: one is bound by
reading the weights, some go through tensor cores with weights dequantized on the way, and for
many a matrix is expanded once and multiplied by torch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import linear as dense_linear

from glm_rag.engine.quantize import LANES, QuantizedTensor

# Up to here: dequantize within the product.
SOME_ROWS = 32
_WORDS_EXPANDED = 32
_MANY_BLOCKS = 512
_BIAS = 127
# Values of an expanded piece (256 MB in 16 bits): all of a block's matrices, a half of the output.
_EXPANDED_VALUES = 1 << 27


@triton.jit
def _values(words, bias, column: tl.constexpr, BITS: tl.constexpr):
    """float32 values of one column of each word.

    The stored bits stay where they are and become the last ones before the binary point of a
    larger number, which is cheaper than moving and converting them. What lies above a float32's
    mantissa is brought down first. `bias` is a float32's 127: as an argument, it lets the compiler
    put a value together in one instruction.
    """
    # int4: column j in the low nibble of byte j, column 4 + j in the high one.
    at: tl.constexpr = 8 * (column % 4) + 4 * (column // 4)
    above: tl.constexpr = at + BITS > 23
    shift: tl.constexpr = at - 12 if above else at
    one = (bias + 23 - shift) << 23  # as bits, 2^(23 - shift): one is 2^shift units
    offset: tl.constexpr = float((1 << (23 - shift)) + (1 << (BITS - 1)))
    stored = ((words >> 12) if above else words) & (((1 << BITS) - 1) << shift)
    return (stored | one).to(tl.float32, bitcast=True) - offset


@triton.jit
def _expanded(words, scales, bias, kind: tl.constexpr, BITS: tl.constexpr):
    """Values of type `kind`, `[N, W * columns of a word]`, of words and scales `[N, W]`."""
    scales = scales.to(tl.float32)
    v0 = (_values(words, bias, 0, BITS) * scales).to(kind)
    v1 = (_values(words, bias, 1, BITS) * scales).to(kind)
    v2 = (_values(words, bias, 2, BITS) * scales).to(kind)
    v3 = (_values(words, bias, 3, BITS) * scales).to(kind)
    # Each join adds a last dimension: the outermost one is the lowest bit of the column.
    if BITS == 4:
        v4 = (_values(words, bias, 4, BITS) * scales).to(kind)
        v5 = (_values(words, bias, 5, BITS) * scales).to(kind)
        v6 = (_values(words, bias, 6, BITS) * scales).to(kind)
        v7 = (_values(words, bias, 7, BITS) * scales).to(kind)
        even = tl.join(tl.join(v0, v4), tl.join(v2, v6))
        joined = tl.join(even, tl.join(tl.join(v1, v5), tl.join(v3, v7)))
    else:
        joined = tl.join(tl.join(v0, v2), tl.join(v1, v3))
    return tl.reshape(joined, (words.shape[0], words.shape[1] * (32 // BITS)))


@triton.jit
def one_row_kernel(
    x_ptr,  # [K]
    words_ptr,  # int32 [N / 16, K / columns of a word, 16]
    scales_ptr,  # float16 [N / 16, K / GROUP, 16]
    out_ptr,  # [rows]
    channels,  # rows of the weight, without padding
    columns,  # K
    bias,  # 127
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    WORDS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One row of x by one block of 16 channels, without tensor cores."""
    PER_WORD: tl.constexpr = 32 // BITS
    block = tl.program_id(0).to(tl.int64)
    num_words = columns // PER_WORD
    lane = tl.arange(0, 16)
    w_block = words_ptr + block * num_words * 16 + lane[None, :]
    s_block = scales_ptr + block * (columns // GROUP) * 16 + lane[None, :]
    total = tl.zeros((WORDS, 16), dtype=tl.float32)
    for first in tl.range(0, num_words, WORDS, num_stages=STAGES):
        word = first + tl.arange(0, WORDS)
        inside = word < num_words
        words = tl.load(w_block + word[:, None] * 16, mask=inside[:, None], other=0)
        group = word * PER_WORD // GROUP
        scales = tl.load(s_block + group[:, None] * 16, mask=inside[:, None], other=0.0)
        part = tl.zeros((WORDS, 16), dtype=tl.float32)
        for column in tl.static_range(PER_WORD):
            x = tl.load(x_ptr + word * PER_WORD + column, mask=inside, other=0.0)
            part += x.to(tl.float32)[:, None] * _values(words, bias, column, BITS)
        total += part * scales.to(tl.float32)
    n = block * 16 + lane
    out = tl.sum(total, axis=0).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + n, out, mask=n < channels)


@triton.jit
def some_rows_kernel(
    x_ptr,  # [M, K]
    words_ptr,
    scales_ptr,
    out_ptr,  # [M, rows]
    num_rows,  # M
    channels,
    columns,
    bias,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    WORDS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """All rows of x by TILE_N channels."""
    PER_WORD: tl.constexpr = 32 // BITS
    TILE_K: tl.constexpr = WORDS * PER_WORD
    m = tl.arange(0, TILE_M)
    n = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    block, lane = (n // 16).to(tl.int64), n % 16
    num_words = columns // PER_WORD
    w_rows = words_ptr + (block * num_words * 16 + lane)[:, None]
    s_rows = scales_ptr + (block * (columns // GROUP) * 16 + lane)[:, None]
    total = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    for first in tl.range(0, num_words, WORDS, num_stages=STAGES):
        word = first + tl.arange(0, WORDS)
        inside = (n < channels)[:, None] & (word < num_words)[None, :]
        words = tl.load(w_rows + word[None, :] * 16, mask=inside, other=0)
        group = word * PER_WORD // GROUP
        scales = tl.load(s_rows + group[None, :] * 16, mask=inside, other=0.0)
        k = first * PER_WORD + tl.arange(0, TILE_K)
        known = (m < num_rows)[:, None] & (k < columns)[None, :]
        x = tl.load(x_ptr + m[:, None] * columns + k[None, :], mask=known, other=0.0)
        w = _expanded(words, scales, bias, x_ptr.dtype.element_ty, BITS)
        total = tl.dot(x, tl.trans(w), total, input_precision="ieee")
    out = out_ptr + m[:, None] * channels + n[None, :]
    written = (m < num_rows)[:, None] & (n < channels)[None, :]
    tl.store(out, total.to(out_ptr.dtype.element_ty), mask=written)


@triton.jit
def expand_kernel(
    words_ptr,
    scales_ptr,
    out_ptr,  # [N, K]
    columns,
    bias,
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
    values = _expanded(words, scales, bias, out_ptr.dtype.element_ty, BITS)
    k = tl.program_id(1) * WORDS * PER_WORD + tl.arange(0, WORDS * PER_WORD)
    out = out_ptr + (block * 16 + lane)[:, None] * columns + k[None, :]
    tl.store(out, values, mask=(k < columns)[None, :])


def linear(x: Tensor, weight: QuantizedTensor) -> Tensor:
    """`x @ weight.T`: `[M, K]` in float16, bfloat16 or float32 to `[M, rows]` of the same dtype."""
    num_rows, columns = x.shape
    if num_rows > SOME_ROWS:
        return linear_expanded(x, weight)
    out = x.new_empty(num_rows, weight.rows)
    if not num_rows:
        return out
    words = weight.packed.view(torch.int32)  # [N / 16, words, 16]
    operands = x.contiguous(), words, weight.scales, out
    kinds = {"BITS": weight.bits, "GROUP": weight.group}
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        if num_rows == 1:
            tiles = one_row_tiles(len(words), weight.bits)
            sizes: tuple[int, ...] = weight.rows, columns, _BIAS
            one_row_kernel[(len(words),)](*operands, *sizes, **kinds, **tiles)
        else:
            sizes = num_rows, weight.rows, columns, _BIAS
            tiles = some_rows_tiles(num_rows, x.dtype)
            grid = (triton.cdiv(weight.rows, tiles["TILE_N"]),)
            some_rows_kernel[grid](*operands, *sizes, **kinds, **tiles)
    return out


def one_row_tiles(num_blocks: int, bits: int) -> dict[str, int]:
    """Compile-time sizes of `one_row_kernel`, measured on an H100 at ChatGLM2-6B's shapes."""
    if bits == 4 and num_blocks > _MANY_BLOCKS:
        return {"WORDS": 64, "STAGES": 3, "num_warps": 4}
    return {"WORDS": 128, "STAGES": 4, "num_warps": 8}


def some_rows_tiles(num_rows: int, dtype: torch.dtype) -> dict[str, int]:
    """Compile-time sizes of `some_rows_kernel`: within the 64 KB of shared memory of any card."""
    rows = max(triton.next_power_of_2(num_rows), 16)
    words = 64 // dtype.itemsize
    stages, warps = (3, 2) if rows == 16 else (2, 4)
    return {"TILE_M": rows, "TILE_N": rows, "WORDS": words, "STAGES": stages, "num_warps": warps}


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
    grid = (len(words), triton.cdiv(words.shape[1], _WORDS_EXPANDED))
    with torch.cuda.device_of(packed):  # type: ignore[no-untyped-call]
        expand_kernel[grid](
            words, scales, out, weight.columns, _BIAS,
            BITS=weight.bits, GROUP=weight.group, WORDS=_WORDS_EXPANDED,
        )  # fmt: skip
    return out
