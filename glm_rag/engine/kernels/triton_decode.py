"""What lies between the matrix products on a CUDA device, in few kernels (Triton).

A step computes some rows: each is one new token with its own position and its own column of its
sequence's KV cache. All that changes from step to step is read from device memory, so the same
launches serve every step and can be recorded in a CUDA graph. `steps` is an int64 tensor with R
rows `[token, position, column, address of keys and values, address of their scales, capacity]`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 64
# Programs that share a row and group, so that few rows fill the device.
_PROGRAMS = 256
_MAX_SPLITS = 128
_INT8_MAX = 127

_KINDS = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.int8: tl.int8,
}


@triton.jit
def _column_offset(layer, which: tl.constexpr, group, column, capacity, GROUPS: tl.constexpr):
    """Number of a row of D values in `[layers, 2, groups, capacity]`."""
    return ((layer * 2 + which) * GROUPS + group) * capacity + column


@triton.jit
def add_norm_kernel(
    x_ptr,  # [R, size], the stream; delta is added in place
    delta_ptr,  # [R, size]
    weight_ptr,  # [size]
    out_ptr,  # [R, size]
    size,
    epsilon,
    HAS_DELTA: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Root mean square norm of `x + delta`, in float32."""
    row = tl.program_id(0)
    column = tl.arange(0, SIZE)
    inside = column < size
    kind = x_ptr.dtype.element_ty
    x = tl.load(x_ptr + row * size + column, mask=inside, other=0.0)
    if HAS_DELTA:
        delta = tl.load(delta_ptr + row * size + column, mask=inside, other=0.0)
        x = (x.to(tl.float32) + delta.to(tl.float32)).to(kind)
        tl.store(x_ptr + row * size + column, x, mask=inside)
    x = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x) / size + epsilon)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * size + column, (x * scale * weight).to(kind), mask=inside)


@triton.jit
def gate_kernel(
    x_ptr,  # [R, 2 * size]
    out_ptr,  # [R, size]
    size,
    SIZE: tl.constexpr,
):
    """silu of the first half times the second."""
    row = tl.program_id(1)
    column = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = column < size
    gate = tl.load(x_ptr + row * 2 * size + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + (row * 2 + 1) * size + column, mask=inside, other=0.0).to(tl.float32)
    value = gate / (1 + tl.exp(-gate)) * up
    tl.store(out_ptr + row * size + column, value.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def rotate_store_kernel(
    steps,
    layer,
    qkv_ptr,  # [R, HEADS + 2 * GROUPS, D]
    table_ptr,  # float32 [positions, TURNED / 2, 2]
    queries_ptr,  # [R, HEADS, D]
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    D: tl.constexpr,
    TURNED: tl.constexpr,  # leading dimensions that rotate
    KV: tl.constexpr,
):
    """Rotate queries and keys; keys and values go to their column of the cache."""
    row, head = tl.program_id(0), tl.program_id(1)
    entry = steps + row * 6
    position, column, capacity = tl.load(entry + 1), tl.load(entry + 2), tl.load(entry + 5)
    d = tl.arange(0, D)
    kind = qkv_ptr.dtype.element_ty
    source = qkv_ptr + (row * (HEADS + 2 * GROUPS) + head) * D
    x = tl.load(source + d).to(tl.float32)
    if head < HEADS + GROUPS:
        partner = tl.load(source + (d ^ 1)).to(tl.float32)
        turns = d < TURNED
        angle = table_ptr + position * TURNED + d // 2 * 2
        cos = tl.load(angle, mask=turns, other=1.0).to(tl.float32)
        sin = tl.load(angle + 1, mask=turns, other=0.0).to(tl.float32)
        x = x * cos + tl.where(d % 2 == 0, -partner, partner) * sin
    x = x.to(kind)
    if head < HEADS:
        tl.store(queries_ptr + (row * HEADS + head) * D + d, x)
    else:
        which = (head - HEADS) // GROUPS
        group = (head - HEADS) % GROUPS
        place = _column_offset(layer, which, group, column, capacity, GROUPS)
        storage = tl.load(entry + 3).to(tl.pointer_type(KV))
        if tl.int8 == KV:
            wide = x.to(tl.float32)
            scale = tl.max(tl.abs(wide)) / 127
            # Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
            rounded = wide / tl.where(scale > 0, scale, 1.0) + 12582912.0 - 12582912.0
            tl.store(storage + place * D + d, rounded.to(tl.int8))
            scales = tl.load(entry + 4).to(tl.pointer_type(tl.float32))
            tl.store(scales + place, scale)
        else:
            tl.store(storage + place * D + d, x.to(KV))


@triton.jit
def attend_kernel(
    steps,
    layer,
    queries_ptr,  # [R, HEADS, D]
    parts_ptr,  # float32 [R, HEADS, SPLITS, D], not divided by their sums
    sums_ptr,  # float32 [R, HEADS, SPLITS, 2]: largest score, sum
    factor,  # of scores
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,  # heads of a group, padded
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
    KV: tl.constexpr,
):
    """The heads of a group over one part of the columns, with a running softmax."""
    PER_GROUP: tl.constexpr = HEADS // GROUPS
    row, group, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    entry = steps + row * 6
    column, capacity = tl.load(entry + 2), tl.load(entry + 5)
    span = tl.cdiv(tl.cdiv(column + 1, SPLITS), BLOCK) * BLOCK
    first = split * span
    end = tl.minimum(first + span, column + 1)
    storage = tl.multiple_of(tl.load(entry + 3).to(tl.pointer_type(KV)), 16)
    scales = tl.load(entry + 4).to(tl.pointer_type(tl.float32))
    key_rows = _column_offset(layer, 0, group, 0, capacity, GROUPS)
    value_rows = _column_offset(layer, 1, group, 0, capacity, GROUPS)
    d, m = tl.arange(0, D), tl.arange(0, ROWS)
    head = group * PER_GROUP + m
    inside = m < PER_GROUP
    q_rows = queries_ptr + (row * HEADS + head)[:, None] * D + d[None, :]
    q = tl.load(q_rows, mask=inside[:, None], other=0.0)
    peak = tl.full((ROWS,), -1e30, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    context = tl.zeros((ROWS, D), tl.float32)
    for at in range(first, end, BLOCK):
        columns = at + tl.arange(0, BLOCK)
        seen = columns < end
        k = tl.load(storage + (key_rows + columns)[:, None] * D + d[None, :],
                    mask=seen[:, None], other=0)  # fmt: skip
        scores = tl.dot(q, tl.trans(k.to(q.dtype)), input_precision="ieee") * factor
        if tl.int8 == KV:
            scores *= tl.load(scales + key_rows + columns, mask=seen, other=0.0)[None, :]
        scores = tl.where(seen[None, :], scores, -1e30)
        new_peak = tl.maximum(peak, tl.max(scores, axis=1))
        weights = tl.where(seen[None, :], tl.exp(scores - new_peak[:, None]), 0.0)
        shrink = tl.exp(peak - new_peak)
        total = total * shrink + tl.sum(weights, axis=1)
        if tl.int8 == KV:
            weights *= tl.load(scales + value_rows + columns, mask=seen, other=0.0)[None, :]
        v = tl.load(storage + (value_rows + columns)[:, None] * D + d[None, :],
                    mask=seen[:, None], other=0)  # fmt: skip
        context = context * shrink[:, None]
        context = tl.dot(weights.to(q.dtype), v.to(q.dtype), context, input_precision="ieee")
        peak = new_peak
    part = (row * HEADS + head) * SPLITS + split
    tl.store(parts_ptr + part[:, None] * D + d[None, :], context, mask=inside[:, None])
    tl.store(sums_ptr + part * 2, peak, mask=inside)
    tl.store(sums_ptr + part * 2 + 1, total, mask=inside)


@triton.jit
def join_kernel(
    parts_ptr,
    sums_ptr,
    out_ptr,  # [R, HEADS, D]
    D: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """The parts of one row and head as one softmax."""
    head = tl.program_id(0)
    d, split = tl.arange(0, D), tl.arange(0, SPLITS)
    peaks = tl.load(sums_ptr + (head * SPLITS + split) * 2)
    factors = tl.exp(peaks - tl.max(peaks))
    total = tl.sum(factors * tl.load(sums_ptr + (head * SPLITS + split) * 2 + 1))
    parts = tl.load(parts_ptr + (head * SPLITS + split)[:, None] * D + d[None, :])
    context = tl.sum(parts * factors[:, None], axis=0) / total
    tl.store(out_ptr + head * D + d, context.to(out_ptr.dtype.element_ty))


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Sizes of attention that the kernels are compiled for. `turned`: dimensions that rotate."""

    heads: int
    groups: int
    head_dim: int
    turned: int
    kv_dtype: torch.dtype


def add_norm(x: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
    """Norm of `x + delta`, `[R, size]`; the sum replaces x."""
    out = torch.empty_like(x)
    size = x.shape[1]
    add_norm_kernel[(len(x),)](
        x, x if delta is None else delta, weight, out, size, epsilon,
        HAS_DELTA=delta is not None, SIZE=triton.next_power_of_2(size), num_warps=8,
    )  # fmt: skip
    return out


def gate(x: Tensor) -> Tensor:
    """`[R, 2 * size]` to `[R, size]`."""
    size = x.shape[1] // 2
    out = x.new_empty(len(x), size)
    block = min(1024, triton.next_power_of_2(size))
    gate_kernel[(triton.cdiv(size, block), len(x))](x, out, size, SIZE=block)
    return out


def rotate_store(
    steps: Tensor, layer: int, qkv: Tensor, table: Tensor, shape: AttentionShape
) -> Tensor:
    """Rotated queries `[R, heads, D]` of `qkv [R, (heads + 2 * groups) * D]`; fills the cache."""
    rows, (heads, groups, size) = len(qkv), (shape.heads, shape.groups, shape.head_dim)
    queries = qkv.new_empty(rows, heads, size)
    rotate_store_kernel[(rows, heads + 2 * groups)](
        steps, layer, qkv, table, queries,
        HEADS=heads, GROUPS=groups, D=size, TURNED=shape.turned, KV=_KINDS[shape.kv_dtype],
        num_warps=1,
    )  # fmt: skip
    return queries


def attend(steps: Tensor, layer: int, queries: Tensor, shape: AttentionShape) -> Tensor:
    """Context `[R, heads * D]` of rotated queries over the columns of their sequences."""
    rows, (heads, groups, size) = len(queries), (shape.heads, shape.groups, shape.head_dim)
    splits = max(1, min(_MAX_SPLITS, _PROGRAMS // (triton.next_power_of_2(rows) * groups)))
    splits = triton.next_power_of_2(splits)
    parts = queries.new_empty(rows, heads, splits, size, dtype=torch.float32)
    sums = queries.new_empty(rows, heads, splits, 2, dtype=torch.float32)
    padded = max(16, triton.next_power_of_2(heads // groups))
    attend_kernel[(rows, groups, splits)](
        steps, layer, queries, parts, sums, size**-0.5,
        HEADS=heads, GROUPS=groups, D=size, KV=_KINDS[shape.kv_dtype],
        ROWS=padded, SPLITS=splits, BLOCK=_BLOCK,
    )  # fmt: skip
    out = queries.new_empty(rows, heads * size)
    join_kernel[(rows * heads,)](parts, sums, out, D=size, SPLITS=splits, num_warps=2)
    return out
