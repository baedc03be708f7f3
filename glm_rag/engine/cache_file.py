"""A KV cache as a file: safetensors with the ids in the header and a checksum over everything."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, uint8

from glm_rag.engine.cache import KVCache
from glm_rag.errors import CheckpointError, ConfigError

SUFFIX = ".safetensors"
# Unfinished files; one that a killed process left is removed after a while.
PARTIAL = ".partial-"

_FORMAT = "glm-rag kv 1"


@dataclass(frozen=True, slots=True)
class CacheHeader:
    """What a file says about itself before its tensors are read. `key`: of model and settings."""

    key: str
    token_ids: np.ndarray  # int32
    sha256: str


def save_cache(cache: KVCache, path: Path, *, key: str = "") -> int:
    """Write a cache of one sequence in one step: a reader sees the whole file or none.

    Returns:
        Bytes written.

    Raises:
        OSError: the folder cannot be written to.
    """
    from safetensors.torch import save

    tensors = cache.tensors()
    metadata = {
        "format": _FORMAT,
        "key": key,
        "token_ids": base64.b64encode(_id_bytes(cache.token_ids)).decode(),
        "sha256": _digest(key, cache.token_ids, tensors),
    }
    data = save(tensors, metadata)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    return len(data)


def read_header(path: Path) -> CacheHeader:
    """Read a file's header alone: some kilobytes, however long the sequence is.

    Raises:
        CheckpointError: no such file, damaged, or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return _header(file.metadata() or {})
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error


def load_cache(path: Path, empty: KVCache, *, key: str = "") -> None:
    """Read a file into a cache of the same model and settings.

    Raises:
        CheckpointError: no such file, damaged, or of another key or model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    header = read_header(path)
    try:
        # Not mapped: a file that shrinks under a mapping kills the process.
        tensors = load(path.read_bytes())
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    ids = [int(i) for i in header.token_ids]
    if header.key != key or header.sha256 != _digest(key, ids, tensors):
        raise CheckpointError(f"{path} is damaged or belongs to another model")
    try:
        empty.restore(tensors, ids)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _header(metadata: Mapping[str, str]) -> CacheHeader:
    if metadata["format"] != _FORMAT:
        raise ValueError(f"format {metadata['format']!r}")
    ids = np.frombuffer(base64.b64decode(metadata["token_ids"], validate=True), dtype="<i4")
    return CacheHeader(metadata["key"], ids, metadata["sha256"])


def _digest(key: str, token_ids: Sequence[int], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{_FORMAT}\0{key}\0".encode())
    digest.update(_id_bytes(token_ids))
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(uint8).numpy()


def _id_bytes(token_ids: Sequence[int]) -> bytes:
    return np.asarray(token_ids, dtype="<i4").tobytes()


def _damaged(path: Path, error: Exception) -> CheckpointError:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(f"{path} is no saved KV cache or damaged ({detail})")
