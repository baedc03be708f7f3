"""Matrices in few bits as modules, in the places of `nn.Linear` and `nn.Embedding`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from glm_rag.engine.config import Quantization
from glm_rag.engine.quantize import (
    LANES,
    QuantizedTensor,
    choose_group,
    dequantize_rows,
    packed_shapes,
)

Multiply = Callable[[Tensor, QuantizedTensor], Tensor]


class QuantizedMatrix(nn.Module):
    """Packed values and scales of a matrix `[rows, columns]`; see `quantize.py`."""

    packed: Tensor
    scales: Tensor

    def __init__(self, rows: int, columns: int, bits: int, group: int) -> None:
        super().__init__()
        self.rows, self.columns, self.bits = rows, columns, bits
        self.group = choose_group(columns, group)
        packed, scales = packed_shapes(rows, columns, bits, self.group)
        self.register_buffer("packed", torch.empty(packed, dtype=torch.uint8))
        self.register_buffer("scales", torch.empty(scales, dtype=torch.float16))

    @property
    def weight(self) -> QuantizedTensor:
        """The matrix as the kernels take it."""
        return QuantizedTensor(
            self.packed, self.scales, self.rows, self.columns, self.bits, self.group
        )

    @property
    def is_whole(self) -> bool:
        """Whether its rows fill their blocks, so that a kernel may write them straight out."""
        return self.rows % LANES == 0


class QuantizedLinear(QuantizedMatrix):
    """`x W^T + bias`.

    Attributes:
        multiply: the product on this machine; set when the weights are there.
    """

    bias: nn.Parameter | None

    def __init__(self, rows: int, columns: int, bits: int, group: int, *, bias: bool) -> None:
        super().__init__(rows, columns, bits, group)
        self.multiply: Multiply | None = None
        self.register_parameter("bias", nn.Parameter(torch.empty(rows)) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., columns]` to `[..., rows]`, dtype of x."""
        if self.multiply is None:
            raise RuntimeError("no kernel was chosen for this matrix")
        product = self.multiply(x.reshape(-1, self.columns), self.weight).to(x.dtype)
        if self.bias is not None:
            product = product + self.bias
        return product.view(*x.shape[:-1], self.rows)


class QuantizedEmbedding(QuantizedMatrix):
    """Rows of the matrix by number, in `dtype`."""

    def __init__(self, rows: int, columns: int, bits: int, group: int) -> None:
        super().__init__(rows, columns, bits, group)
        self.dtype = torch.float32

    def forward(self, ids: Tensor) -> Tensor:
        """`[...]` to `[..., columns]`."""
        return dequantize_rows(self.weight, ids, self.dtype)


def make_linear(
    columns: int, rows: int, quantization: Quantization | None, *, bias: bool = False
) -> nn.Module:
    """A linear layer of a block."""
    if quantization is None:
        return nn.Linear(columns, rows, bias=bias)
    return QuantizedLinear(rows, columns, quantization.bits, quantization.group, bias=bias)


def make_embedding(rows: int, columns: int, quantization: Quantization | None) -> nn.Module:
    """The vocabulary."""
    if quantization is None or not quantization.embedding_bits:
        return nn.Embedding(rows, columns)
    return QuantizedEmbedding(rows, columns, quantization.embedding_bits, quantization.group)


def make_output(columns: int, rows: int, quantization: Quantization | None) -> nn.Module:
    """The output layer."""
    if quantization is None or not quantization.embedding_bits:
        return nn.Linear(columns, rows, bias=False)
    bits, group = quantization.embedding_bits, quantization.group
    return QuantizedLinear(rows, columns, bits, group, bias=False)
