"""Which code multiplies quantized weights on a device, and why that one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from glm_rag.engine.kernels import fallback, native
from glm_rag.engine.kernels.native import Native
from glm_rag.engine.kernels.native_linear import make_linear
from glm_rag.engine.quantize import QuantizedTensor, dequantize, from_official
from glm_rag.errors import ConfigError, GlmRagError, ModelError

_LOG = logging.getLogger(__name__)

Linear = Callable[[Tensor, QuantizedTensor], Tensor]

_ORDER = {"cpu": ("native-avx512", "native-avx2", "torch"), "cuda": ("triton", "torch")}
# The official kernels are third-party machine code: by name only.
_ON_REQUEST = {"cpu": (), "cuda": ("cpm_kernels",)}
NAMES = ("native-avx512", "native-avx2", "triton", "cpm_kernels", "torch")
# Triton compiles for tensor cores, which begin here.
_TRITON_CAPABILITY = (7, 0)
_WHAT = {
    "native-avx512": "compiled kernels with AVX-512 VNNI",
    "native-avx2": "compiled kernels with AVX2",
    "triton": "fused dequantize and multiply",
    "cpm_kernels": "the checkpoint's own kernels expand each matrix for torch",
    "torch": "each matrix is expanded in pieces for torch",
}
# Measured on 2 threads against the AVX-512 kernels (docs/engine.md, Kernels).
_LOSS = {
    "cpu": "about 50 times slower per token, 10 times in prefill",
    "cuda": "each token reads the weights several times over",
}


@dataclass(frozen=True, slots=True)
class Backend:
    """How quantized products are computed.

    Attributes:
        name: native-avx512, native-avx2, torch, triton or cpm_kernels.
        reason: one line: what it is, and why each better one was passed over.
        linear: `x [M, K]` and a weight to `x @ weight.T` `[M, rows]`, in x's dtype.
        library: the compiled code, which also runs whole blocks; None for other backends.
    """

    name: str
    reason: str
    linear: Linear
    library: Native | None = None


def choose_backend(
    device: torch.device | str, *, prefer: str = "auto", checkpoint: Path | None = None
) -> Backend:
    """The best backend that passes a small product on this device; torch always does.

    Args:
        device: a CPU or a CUDA device.
        prefer: `auto`, or one of `NAMES` to try first. If it fails the others follow, and the
            reason says so.
        checkpoint: folder with the official kernels; only read for `prefer="cpm_kernels"`.

    Raises:
        ConfigError: no such backend on this kind of device.
    """
    device = torch.device(device)
    passed_over = []
    for name in _candidates(device.type, prefer):
        try:
            linear = _open(name, device, checkpoint)
            self_test(linear, device)
        except (GlmRagError, OSError) as error:
            passed_over.append(f"not {name}: {error}")
            continue
        reason = "; ".join([_describe(name, device.type, prefer), *passed_over])
        if passed_over:
            # AVX2 where there is no AVX-512 is no loss; torch, or not what was asked for, is.
            lost = name == "torch" or prefer not in ("auto", name)
            level = logging.WARNING if lost else logging.INFO
            _LOG.log(level, "quantized products by %s: %s", name, reason)
        return Backend(name, reason, linear, _library(name))
    raise ModelError("; ".join(passed_over))


def _candidates(kind: str, prefer: str) -> list[str]:
    order = _ORDER.get(kind, ("torch",))
    if prefer == "auto":
        return list(order)
    if prefer not in (*order, *_ON_REQUEST.get(kind, ())):
        choices = ", ".join(("auto", *order, *_ON_REQUEST.get(kind, ())))
        raise ConfigError(f"the kernels on {kind} must be one of {choices}, not {prefer!r}")
    return [prefer, *(name for name in order if name != prefer)]


def _describe(name: str, kind: str, prefer: str) -> str:
    asked = ", as asked" if name == prefer else ""
    loss = f" ({_LOSS[kind]})" if name == "torch" and kind in _LOSS else ""
    return f"{_WHAT[name]}{asked}{loss}"


def _open(name: str, device: torch.device, checkpoint: Path | None) -> Linear:
    if name.startswith("native-"):
        return _native(name.removeprefix("native-"))
    if name == "triton":
        return _triton(device)
    if name == "cpm_kernels":
        from glm_rag.engine.kernels import cpm

        if checkpoint is None:
            raise ModelError("no checkpoint folder that holds the official kernels was named")
        return cpm.make_linear(checkpoint, device)
    return fallback.linear


def _native(instructions: str) -> Linear:
    library = native.load(instructions)
    library.set_threads(torch.get_num_threads())
    return make_linear(library)


def _library(name: str) -> Native | None:
    is_native = name.startswith("native-")
    return native.load(name.removeprefix("native-")) if is_native else None


def _triton(device: torch.device) -> Linear:
    capability = torch.cuda.get_device_capability(device)
    if capability < _TRITON_CAPABILITY:
        raise ModelError(f"compute capability {capability[0]}.{capability[1]} is below 7.0")
    try:
        from glm_rag.engine.kernels import triton_linear
    except ImportError as error:
        raise ModelError(f'{error}: run pip install "glm-rag[gpu]"') from error
    return triton_linear.linear


def self_test(linear: Linear, device: torch.device) -> None:
    """Multiply once, in both widths, and compare with torch.

    Raises:
        ModelError: it fails or is more than 2 % off.
    """
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    for bits in (4, 8):
        bytes_ = torch.randint(-128, 128, (40, 32 * bits // 8 * 2), generator=generator)
        weight = from_official(bytes_.to(torch.int8), torch.full((40,), 0.01), bits)
        x = torch.randn(5, weight.columns, generator=generator)
        expected = x @ dequantize(weight).T
        try:
            actual = linear(x.to(device, dtype), _to(weight, device)).float().cpu()
        except Exception as error:  # compilers, drivers and foreign code
            first_line = next(iter(str(error).splitlines()), "")
            raise ModelError(f"fails with {type(error).__name__}: {first_line}") from error
        if not (actual - expected).norm() < 0.02 * expected.norm():
            raise ModelError(f"wrong results in int{bits}")


def _to(weight: QuantizedTensor, device: torch.device) -> QuantizedTensor:
    packed, scales = weight.packed.to(device), weight.scales.to(device)
    return QuantizedTensor(packed, scales, weight.rows, weight.columns, weight.bits, weight.group)
