"""Where a model runs and in which precision."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from glm_rag.engine.config import ModelConfig
from glm_rag.errors import ConfigError

# From here on 32-bit weights (4 GB and more) cost more in memory and reading than they give.
_LARGE_MODEL = 1_000_000_000
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(asked: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device that exists, else ConfigError."""
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = asked.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or asked == "cuda:":
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, not {asked!r}")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"device {asked}: no usable CUDA device here; set device to cpu or install a CUDA "
            "build of torch and its driver"
        )
    index = int(number) if number else torch.cuda.current_device()
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"device {asked}: there are only {torch.cuda.device_count()} CUDA devices"
        )
    return torch.device("cuda", index)


def choose_dtype(asked: str, device: torch.device, config: ModelConfig) -> torch.dtype:
    """A dtype the device computes well in, else ConfigError.

    Quantized models on the CPU compute in float32: only norms and activations are left in it.
    """
    if asked == "auto":
        if device.type == "cpu":
            small = config.quantization or config.num_parameters < _LARGE_MODEL
            return torch.float32 if small else torch.bfloat16
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if asked not in _DTYPES:
        raise ConfigError(f"dtype must be auto, float32, bfloat16 or float16, not {asked!r}")
    if asked == "float16" and device.type == "cpu":
        raise ConfigError("float16 does not run on the CPU: set dtype to bfloat16 or float32")
    return _DTYPES[asked]


def choose_kv_dtype(asked: str, device: torch.device, config: ModelConfig) -> torch.dtype | None:
    """Type of cached keys and values; None: that of the model."""
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
    if asked == "auto":
        return torch.bfloat16 if config.quantization and device.type == "cpu" else None
    if asked not in kinds:
        raise ConfigError(f"kv_cache must be auto, {', '.join(kinds)}, not {asked!r}")
    return kinds[asked]


def set_threads(threads: int | None) -> None:
    """Use that many CPU threads; by default no more than there are physical cores."""
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    # torch's own number respects OMP_NUM_THREADS.
    torch.set_num_threads(threads or min(torch.get_num_threads(), physical_cores()))


def physical_cores() -> int:
    """Cores this process may run on, hardware threads of one core counted once."""
    usable = _usable_cpus()
    cores = set()
    for cpu in usable:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text(encoding="ascii").strip())
        except OSError:
            cores.add(str(cpu))
    return max(len(cores), 1)


def _usable_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
