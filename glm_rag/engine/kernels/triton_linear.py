"""Products with quantized weights on a CUDA device (Triton).

Reads the layout of `glm_rag.engine.quantize` as words of 32 bits: one word holds 8 (int4) or 4
(int8) columns of one output channel, and the words of 16 channels lie side by side, so a warp
reads whole cache lines. Sums are float32. Three ways by the number of rows: one is bound by
reading the weights, some go through tensor cores with weights unpacked in registers on the way,
and for many a matrix is expanded once and multiplied by torch.
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
# From here, other tiles are fastest: there are enough blocks for all of a card at once.
MANY_BLOCKS = 512
_WORDS_EXPANDED = 32
_TENSOR_CORES = (8, 0)
# Tiles of some rows by bits, many blocks, and rows, measured on an H200 at ChatGLM2-6B's shapes.
_SIZES = ("TILE_N", "PARTS", "STAGES", "num_warps")
_TILES = {
    (4, False, 8): (32, 16, 3, 4), (4, False, 16): (32, 16, 3, 4), (4, False, 32): (32, 8, 3, 4),
    (8, False, 8): (16, 16, 3, 4), (8, False, 16): (16, 16, 3, 4), (8, False, 32): (32, 8, 3, 4),
    (4, True, 8): (64, 4, 3, 2), (4, True, 16): (64, 4, 3, 2), (4, True, 32): (64, 4, 3, 4),
    (8, True, 8): (32, 8, 2, 2), (8, True, 16): (64, 4, 3, 2), (8, True, 32): (64, 4, 3, 4),
}  # fmt: skip
_PLAIN_TILE = (16, 8, 1, 4)
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
def _columns(words, factors, bias, kind: tl.constexpr, BITS: tl.constexpr):
    """Stored values times float32 `factors`, in `kind`: `[..., W]` to `[..., W, 2, 2, (2)]`.

    To be reshaped: the last dimensions together are the columns of a word, in their order.
    """
    v0 = (_values(words, bias, 0, BITS) * factors).to(kind)
    v1 = (_values(words, bias, 1, BITS) * factors).to(kind)
    v2 = (_values(words, bias, 2, BITS) * factors).to(kind)
    v3 = (_values(words, bias, 3, BITS) * factors).to(kind)
    # Each join adds a last dimension: the outermost one is the lowest bit of the column.
    if BITS == 4:
        v4 = (_values(words, bias, 4, BITS) * factors).to(kind)
        v5 = (_values(words, bias, 5, BITS) * factors).to(kind)
        v6 = (_values(words, bias, 6, BITS) * factors).to(kind)
        v7 = (_values(words, bias, 7, BITS) * factors).to(kind)
        even = tl.join(tl.join(v0, v4), tl.join(v2, v6))
        joined = tl.join(even, tl.join(tl.join(v1, v5), tl.join(v3, v7)))
    else:
        joined = tl.join(tl.join(v0, v2), tl.join(v1, v3))
    return joined


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


@triton.jit(do_not_specialize=["num_rows"])
def some_rows_kernel(
    x_ptr,  # [M, K]
    words_ptr,
    scales_ptr,
    out_ptr,  # [M, rows]
    num_rows,  # M
    channels,
    columns,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    PARTS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """All rows of x by TILE_N channels.

    The columns come in parts of 32, each within one group. PARTS of them are multiplied side by
    side, each by one warp: stored values are exact in 16 bits, and a part's sums take its scale.
    """
    PART: tl.constexpr = 32
    WORDS: tl.constexpr = PART * BITS // 32
    kind = x_ptr.dtype.element_ty
    num_parts = columns // PART
    # A product on tensor cores wants four consecutive columns in a thread, and Triton lets the
    # words be loaded just so if only loads lead to them: 127 has to look like one.
    never = tl.full((1, 1, 1), 0, tl.int32) > columns
    bias = tl.load(words_ptr + tl.zeros((1, 1, 1), tl.int32), mask=never, other=127)
    k = tl.arange(0, PART)
    if BITS == 4:  # half of a word, word, column of the half
        k = k // 16 * 4 + k % 16 // 4 * 8 + k % 4
    k = tl.max_contiguous(tl.multiple_of(k, 4), 4)[None, :, None]
    m = tl.arange(0, TILE_M)[None, None, :]
    n = tl.program_id(0) * TILE_N + tl.arange(0, TILE_N)
    # What is beyond the last block is read there, and not written.
    block, lane = tl.minimum(n // 16, (channels - 1) // 16).to(tl.int64), n % 16
    w_rows = words_ptr + (block * num_parts * WORDS * 16 + lane)[None, :, None]
    s_rows = scales_ptr + (block * (columns // GROUP) * 16 + lane)[None, :, None]
    total = tl.zeros((PARTS, TILE_N, TILE_M), dtype=tl.float32)
    for first in tl.range(0, num_parts, PARTS, num_stages=STAGES):
        part = (first + tl.arange(0, PARTS))[:, None, None]
        known = (part < num_parts) & (m < num_rows)
        x = tl.load(x_ptr + m * columns + part * PART + k, mask=known, other=0.0)
        part = tl.minimum(part, num_parts - 1)
        words = tl.load(w_rows + (part * WORDS + tl.arange(0, WORDS)[None, None, :]) * 16)
        scales = tl.load(s_rows + part // (GROUP // PART) * 16)
        w = _columns(words, 1.0, bias, kind, BITS)
        if BITS == 4:
            w = tl.permute(w, (0, 1, 3, 2, 4, 5))
        w = tl.reshape(w, (PARTS, TILE_N, PART))
        total += tl.dot(w, x, input_precision="ieee") * scales.to(tl.float32)
    m = tl.arange(0, TILE_M)[None, :]
    out = out_ptr + m * channels + n[:, None]
    written = (m < num_rows) & (n < channels)[:, None]
    tl.store(out, tl.sum(total, axis=0).to(kind), mask=written)


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
    values = _columns(words, scales.to(tl.float32), bias, out_ptr.dtype.element_ty, BITS)
    values = tl.reshape(values, (16, WORDS * PER_WORD))
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
            sizes = num_rows, weight.rows, columns
            tiles = some_rows_tiles(num_rows, len(words), weight.bits, tensor_cores(x))
            grid = (triton.cdiv(weight.rows, tiles["TILE_N"]),)
            some_rows_kernel[grid](*operands, *sizes, **kinds, **tiles)
    return out


def tensor_cores(x: Tensor) -> bool:
    """Whether Triton multiplies x on tensor cores: not in float32, and not on older cards."""
    if x.dtype == torch.float32:
        return False
    return not x.is_cuda or torch.cuda.get_device_capability(x.device) >= _TENSOR_CORES


def one_row_tiles(num_blocks: int, bits: int) -> dict[str, int]:
    """Compile-time sizes of `one_row_kernel`, measured on an H100 at ChatGLM2-6B's shapes."""
    if bits == 4 and num_blocks > MANY_BLOCKS:
        return {"WORDS": 64, "STAGES": 3, "num_warps": 4}
    return {"WORDS": 128, "STAGES": 4, "num_warps": 8}


def some_rows_tiles(
    num_rows: int, num_blocks: int, bits: int, tensor_cores: bool
) -> dict[str, int]:
    """Compile-time sizes of `some_rows_kernel`: within the 64 KB of shared memory of any card."""
    rows = max(triton.next_power_of_2(num_rows), 8)
    tile = _TILES[bits, num_blocks > MANY_BLOCKS, rows] if tensor_cores else _PLAIN_TILE
    return {"TILE_M": rows} | dict(zip(_SIZES, tile, strict=True))


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
