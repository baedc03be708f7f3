"""The compiled CPU kernels: built at first use where there is a compiler, called by ctypes.

The library itself knows neither torch nor Python, so one build serves every version of both. It is
compiled once, in seconds, and kept in the user's cache folder under a name that holds the hash of
its source and flags.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from glm_rag.engine.quantize import LANES, QuantizedTensor
from glm_rag.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

SOURCES = ("native.cpp", "simd.h", "threads.h")
# Instruction sets in order of preference, the CPU flags each needs, and how to compile for it.
FEATURES = {
    "avx512": frozenset(
        {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx2", "fma", "f16c"}
    ),
    "avx2": frozenset({"avx2", "fma", "f16c"}),
}
_FLAGS = {
    "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c",
    "avx2": "-mavx2 -mfma -mf16c",
}
_COMMON_FLAGS = "-std=c++17 -O3 -fPIC -shared -pthread"
_HERE = Path(__file__).parent
_TIMEOUT_SECONDS = 300


class Matrix(ctypes.Structure):
    """A quantized weight as the library sees it."""

    _fields_ = (
        ("packed", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int32),
        ("columns", ctypes.c_int32),
        ("group", ctypes.c_int32),
        ("bits", ctypes.c_int32),
    )


class Block(ctypes.Structure):
    """One transformer block."""

    _fields_ = (
        ("query_key_value", Matrix),
        ("dense", Matrix),
        ("h_to_4h", Matrix),
        ("to_h", Matrix),
        ("input_norm", ctypes.c_void_p),
        ("post_norm", ctypes.c_void_p),
        ("epsilon", ctypes.c_float),
        ("heads", ctypes.c_int32),
        ("groups", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("rotary_dim", ctypes.c_int32),
    )


class CacheView(ctypes.Structure):
    """Keys and values of one layer and sequence; the last `tokens` of its `length` columns are
    being written."""

    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("key_scales", ctypes.c_void_p),
        ("value_scales", ctypes.c_void_p),
        ("kind", ctypes.c_int32),
        ("capacity", ctypes.c_int32),
        ("length", ctypes.c_int32),
        ("tokens", ctypes.c_int32),
    )


class Native:
    """The loaded library. `instructions` names what it was compiled for."""

    def __init__(self, path: Path, instructions: str) -> None:
        self.path, self.instructions = path, instructions
        library = ctypes.CDLL(str(path))
        pointer, number = ctypes.c_void_p, ctypes.c_int32
        self.set_threads = _function(library.glm_set_threads, number)
        self.linear = _function(library.glm_linear, pointer, pointer, number, pointer)
        self.block = _function(library.glm_block, pointer, pointer, number, pointer, pointer)


def describe(weight: QuantizedTensor, bias: Tensor | None = None) -> Matrix:
    """A weight, and its float32 bias, as the library takes it; both must outlive the result."""
    padded_rows = len(weight.packed) * LANES
    return Matrix(
        weight.packed.data_ptr(),
        weight.scales.data_ptr(),
        None if bias is None else bias.data_ptr(),
        padded_rows,
        weight.columns,
        weight.group,
        weight.bits,
    )


def _function(function: ctypes._NamedFuncPointer, *types: type) -> ctypes._NamedFuncPointer:
    function.argtypes, function.restype = types, None
    return function


def cpu_features() -> frozenset[str]:
    """Instruction sets of this CPU by their Linux names; empty where they cannot be told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = [line.partition(":")[2].split() for line in lines if line.startswith("flags")]
    return frozenset(flags[0]) if flags else frozenset()


def best_instructions() -> str:
    """The best instruction set of this CPU that there is code for.

    Raises:
        ModelError: there is none; the message says what is missing.
    """
    if platform.system() != "Linux" or platform.machine() not in {"x86_64", "AMD64"}:
        raise ModelError("the native kernels are for Linux on x86-64")
    features = cpu_features()
    for name, needed in FEATURES.items():
        if needed <= features:
            return name
    missing = ", ".join(sorted(FEATURES["avx2"] - features))
    raise ModelError(f"this CPU lacks {missing}, which the native kernels need")


@cache
def load(instructions: str = "auto", cache_dir: Path | None = None) -> Native:
    """The library for an instruction set, built now if need be.

    Args:
        instructions: auto, avx512 or avx2.
        cache_dir: where builds are kept.

    Raises:
        ModelError: this CPU cannot run it, or there is no build and no compiler; in one line.
    """
    chosen = best_instructions() if instructions == "auto" else instructions
    if not FEATURES[chosen] <= cpu_features():
        raise ModelError(f"this CPU cannot run {chosen} code")
    return Native(_build_once(chosen, cache_dir or _default_cache()), chosen)


def _default_cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("glm-rag")) / "kernels"


def _build_once(instructions: str, folder: Path) -> Path:
    target = folder / f"libglm_rag-{instructions}-{source_hash(instructions)}.so"
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            built = Path(work) / target.name
            compile_library(instructions, built)
            built.replace(target)  # two processes may build at once: each moves a whole file
    except OSError as error:
        raise ModelError(f"cannot keep the compiled kernels in {folder}: {error}") from error
    return target


def source_hash(instructions: str) -> str:
    """Changes with the source and the flags."""
    content = b"".join((_HERE / name).read_bytes() for name in SOURCES)
    flags = f"{_COMMON_FLAGS} {_FLAGS[instructions]}".encode()
    return hashlib.sha256(content + flags).hexdigest()[:16]


def compile_library(instructions: str, target: Path) -> None:
    """Compile the source for an instruction set.

    Raises:
        ModelError: no compiler, or it fails; its first error line is part of the message.
    """
    command = _command(instructions, target)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"cannot run the C++ compiler {command[0]}: {error}") from error
    if done.returncode:
        wrong = next(iter(_errors(done.stderr)), f"exit code {done.returncode}")
        raise ModelError(f"the C++ compiler {command[0]} failed: {wrong}")


def _errors(output: str) -> Iterator[str]:
    return (line for line in output.splitlines() if "error" in line)


def _command(instructions: str, target: Path) -> list[str]:
    flags = [*_COMMON_FLAGS.split(), *_FLAGS[instructions].split()]
    return [compiler(), *flags, str(_HERE / "native.cpp"), "-o", str(target)]


def compiler() -> str:
    """Path of a C++ compiler.

    Raises:
        ModelError: there is none.
    """
    for name in ("g++", "clang++", "c++"):
        if found := shutil.which(name):
            return found
    raise ModelError("there is no C++ compiler: install g++ (Debian: apt install g++)")
