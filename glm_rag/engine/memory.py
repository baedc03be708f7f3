"""Refuse what does not fit into memory before the system kills the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from glm_rag.errors import ModelError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_GIB = 2**30


def available_bytes(device: torch.device) -> int | None:
    """Free memory of the device in bytes, within the container's limit; None if unknown."""
    if device.type == "cuda":
        # What torch holds for reuse is free too.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    known = [value for value in (_system_available(), _cgroup_available()) if value is not None]
    return min(known, default=None)


def require_memory(needed: int, device: torch.device, what: str) -> None:
    """Raise ModelError unless `needed` bytes for `what` are free on the device."""
    available = available_bytes(device)
    if available is not None and needed > available:
        raise ModelError(
            f"{what} needs {needed / _GIB:.1f} GiB of memory but {device} has "
            f"{available / _GIB:.1f} GiB free: close other programs or use a smaller model, "
            "a 16-bit dtype or a shorter prompt"
        )


@contextmanager
def out_of_memory_as_error(what: str) -> Iterator[None]:
    """Raise ModelError, in one line, where a CUDA device runs out of memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"the GPU has too little memory {what}: use a shorter prompt, fewer answers at once, "
            "a quantized model or kv_cache int8"
        ) from error


def first_line(error: BaseException) -> str:
    """Kind and first line of a foreign error's message."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _system_available() -> int | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None


def _cgroup_available() -> int | None:
    """What a version 2 control group leaves; file pages can be reclaimed and count as free."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    reclaimable = sum(int(line.split()[1]) for line in stat if line.startswith("inactive_file "))
    return max(int(limit) - used + reclaimable, 0)
