"""Which kernel multiplies quantized weights on this machine, and why."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from glm_rag.engine.kernels import native
from glm_rag.engine.quantize import QuantizedTensor


@dataclass(frozen=True, slots=True)
class Backend:
    name: str
    reason: str
    linear: Callable[[Tensor, QuantizedTensor], Tensor]
    library: native.Native | None = None


def choose_backend(device: torch.device, *, prefer: str = "auto") -> Backend:
    kind = prefer.removeprefix("native-") if prefer.startswith("native-") else "auto"
    library = native.load(kind)
    library.set_threads(torch.get_num_threads())

    def linear(x: Tensor, weight: QuantizedTensor) -> Tensor:
        x = x.float().contiguous()
        out = torch.empty(len(x), len(weight.packed) * 16)
        library.linear(ctypes.byref(native.describe(weight)), x.data_ptr(), len(x), out.data_ptr())
        return out[:, : weight.rows]

    return Backend(f"native-{library.instructions}", "", linear, library)
