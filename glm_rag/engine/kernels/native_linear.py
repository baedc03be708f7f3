"""Products with quantized weights by the compiled CPU library."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from glm_rag.engine.kernels.native import Native, describe
from glm_rag.engine.quantize import QuantizedTensor


def make_linear(library: Native) -> Callable[[Tensor, QuantizedTensor], Tensor]:
    """A function `x @ weight.T`, `[M, K]` to `[M, rows]` of the same dtype; float32 within.

    The library rounds activations to 8 bits, one scale per row and 32 to 128 columns: about 0.5 to
    0.8 % relative error on random data, none where they are small integers. A row's result depends
    neither on the other rows nor on the number of threads.
    """

    def linear(x: Tensor, weight: QuantizedTensor) -> Tensor:
        matrix = describe(weight)
        inputs = x.float().contiguous()
        out = torch.empty(len(x), matrix.rows)
        library.linear(ctypes.byref(matrix), inputs.data_ptr(), len(x), out.data_ptr())
        return out[:, : weight.rows].to(x.dtype)

    return linear
