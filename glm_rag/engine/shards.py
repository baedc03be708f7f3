"""Tensors of one weight file: a PyTorch zip pickle or safetensors."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from glm_rag.errors import CheckpointError, MissingDependencyError


def read_shard(path: Path) -> dict[str, Tensor]:
    """Tensors of one file by name, mapped from it where its format allows.

    Only tensors are read: a pickle with anything else in it is refused.

    Raises:
        CheckpointError: the file is truncated, damaged or no weight file.
    """
    try:
        tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except MissingDependencyError:
        raise
    except Exception as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is truncated or damaged, fetch it again ({detail})"
        ) from error
    if not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} holds other things than tensors: it is no checkpoint")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingDependencyError.for_extra("safetensors", "engine") from error
    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        # Files written before PyTorch 1.6 cannot be mapped.
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict):
        raise pickle.UnpicklingError(f"it holds a {type(loaded).__name__}, not named tensors")
    return loaded
