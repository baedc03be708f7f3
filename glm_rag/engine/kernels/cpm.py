"""The official CUDA kernels of a ChatGLM2 checkpoint, loaded by `cpm_kernels`: for old cards.

The machine code is a base64 string in the checkpoint's own `quantization.py`; it is read from the
user's folder, on request only, and the file is parsed, never run. It expands a matrix to float16,
int4 or int8 with one scale per row; the product is torch's. Each matrix is kept a second time on
the device, in the official layout. What a CPU can prove is tested with a fake `cpm_kernels`;
**these kernels were never run on a GPU**.
"""

from __future__ import annotations

import ast
import base64
import bz2
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from glm_rag.engine.kernels import fallback
from glm_rag.engine.quantize import QuantizedTensor, unpack
from glm_rag.errors import CheckpointError, ModelError

# The code is for these devices only; it holds no PTX that a newer driver could translate.
CAPABILITIES = frozenset({(6, 1), (6, 2), (7, 0), (7, 2), (7, 5), (8, 0), (8, 6), (8, 9)})
SOURCE = "quantization.py"
_VARIABLE = "quantization_code"
_FATBIN_MAGIC = 0xBA55ED50
_MAX_SOURCE_BYTES = 32 << 20
_MAX_CODE_BYTES = 256 << 20
_PROBE_SECONDS = 60
_MAX_THREADS = 1024


def make_linear(
    checkpoint: Path, device: torch.device
) -> Callable[[Tensor, QuantizedTensor], Tensor]:
    """A function `x @ weight.T` by the kernels in a checkpoint folder.

    Raises:
        ModelError: they cannot be used; the message is the reason, in one line.
    """
    capability = torch.cuda.get_device_capability(device)
    if capability not in CAPABILITIES:
        known = ", ".join(f"{major}.{minor}" for major, minor in sorted(CAPABILITIES))
        raise ModelError(
            f"the official kernels have no code for compute capability "
            f"{capability[0]}.{capability[1]}, only for {known}"
        )
    code = read_fatbin(checkpoint / SOURCE)
    probe()
    return OfficialKernels(code).linear


def read_fatbin(source: Path) -> bytes:
    """The CUDA machine code in a published `quantization.py`, which is parsed and never run.

    Raises:
        CheckpointError: there is none in it.
    """
    try:
        if source.stat().st_size > _MAX_SOURCE_BYTES:
            raise CheckpointError(f"{source} is too large to be the official file")
        packed = base64.b64decode(_string(ast.parse(source.read_bytes())))
        unpacker = bz2.BZ2Decompressor()
        code = unpacker.decompress(packed, _MAX_CODE_BYTES)
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise CheckpointError(f"no kernels in {source}: {error}") from error
    if not unpacker.eof or int.from_bytes(code[:4], "little") != _FATBIN_MAGIC:
        raise CheckpointError(f"no kernels in {source}: {_VARIABLE} is not CUDA machine code")
    return code


def _string(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if names == [_VARIABLE] and isinstance(node.value.value, str):
                return node.value.value
    raise ValueError(f"it assigns no text to {_VARIABLE}")


def probe() -> None:
    """Import `cpm_kernels` in a process of its own: its import talks to the driver.

    Raises:
        ModelError: it fails, whatever the way.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", "import cpm_kernels.kernels.base"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace",
            timeout=_PROBE_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelError(f"cpm_kernels cannot be tried: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ModelError(f"cpm_kernels cannot be imported: {said[-1]}")


class OfficialKernels:
    """The two extraction kernels, and the matrices in their layout."""

    def __init__(self, code: bytes) -> None:
        try:
            from cpm_kernels.kernels.base import KernelFunction, LazyKernelCModule

            module = LazyKernelCModule(code)
            names = {4: "int4WeightExtractionHalf", 8: "int8WeightExtractionHalf"}
            self._extract = {bits: KernelFunction(module, name) for bits, name in names.items()}
        except Exception as error:  # driver, runtime or setuptools
            raise ModelError(f"cpm_kernels cannot load the kernels: {error}") from error
        self._official: Any = WeakTensorKeyDictionary()

    def linear(self, x: Tensor, weight: QuantizedTensor) -> Tensor:
        """`x @ weight.T`; matrices with a scale per group, which these kernels lack, by torch."""
        if weight.packed not in self._official:
            self._official[weight.packed] = to_official(weight)
        packed, scales = self._official[weight.packed]
        if not len(packed):
            return fallback.linear(x, weight)
        expanded = self._expand(packed, scales, weight.bits)
        return x @ expanded.to(x.dtype).T

    def _expand(self, packed: Tensor, scales: Tensor, bits: int) -> Tensor:
        rows, columns = packed.shape  # columns in bytes
        out = packed.new_empty(rows, columns * 8 // bits, dtype=torch.float16)
        stream = torch.cuda.current_stream(packed.device).cuda_stream if packed.is_cuda else 0
        threads = min(-(-columns // 32) * 32, _MAX_THREADS)
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (packed, scales, out)]
        arguments = [*pointers, ctypes.c_int32(rows), ctypes.c_int32(columns)]
        with torch.cuda.device_of(packed):  # type: ignore[no-untyped-call]
            self._extract[bits](
                (rows, 1, 1), (threads, 1, 1), 0, ctypes.c_void_p(stream), arguments
            )
        return out


def to_official(weight: QuantizedTensor) -> tuple[Tensor, Tensor]:
    """int8 `[N, K * bits / 8]` and float16 `[N]`, the inverse of `from_official`.

    Both are empty where a row's groups have different scales.
    """
    values, scales = unpack(weight)
    if not bool((scales == scales[:, :1]).all()):
        return values.new_empty(0), scales.new_empty(0)
    if weight.bits == 4:
        pairs = values.view(len(values), -1, 2)
        values = pairs[..., 0] << 4 | pairs[..., 1] & 15  # the even column in the high nibble
    return values.contiguous(), scales[:, 0].contiguous()
