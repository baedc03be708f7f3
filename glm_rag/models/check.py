"""Is this folder a complete checkpoint? Looks at files and headers, loads no weights."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.weight_files import find_weight_files
from glm_rag.errors import CheckpointError
from glm_rag.models.registry import ModelSpec

_LFS_POINTER = b"version https://git-lfs"


def check_folder(folder: Path) -> ModelConfig:
    """Verify that config, tokenizer and every weight file are there and whole.

    Raises:
        ModelNotFoundError: no such folder, or no config.json in it.
        ModelError: config.json describes a model that the engine does not run.
        CheckpointError: a file is missing, truncated, a git-lfs pointer or unreadable.
    """
    config = ModelConfig.from_folder(folder)
    for path in find_weight_files(folder):
        _check_weights(path)
    if not any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        raise CheckpointError(f"{folder} has no tokenizer.model: copy it from the model's files")
    return config


def check_is(config: ModelConfig, spec: ModelSpec, folder: Path) -> None:
    """Refuse a folder of another model under this name.

    Raises:
        CheckpointError: a value of config.json differs from the named model's.
    """
    for key, expected in spec.expect.items():
        found = getattr(config, key)
        if found != expected:
            raise CheckpointError(
                f"{folder} is not {spec.name}: its config.json has {key} {found:g}, expected "
                f"{expected:g}; a model of your own needs no name, pass its folder as the model"
            )


def _check_weights(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        raise CheckpointError(
            f"{path} is a git-lfs pointer, not the weights: run `git lfs pull` in that folder"
        )
    if path.suffix == ".safetensors":
        for _name, _tensor in safetensors_header(path):
            pass
    elif not zipfile.is_zipfile(path):  # torch writes zip archives; the end is what truncation eats
        raise CheckpointError(f"{path} is truncated or no torch file: fetch it again")


def safetensors_header(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names, types and shapes of the tensors in a safetensors file.

    Raises:
        CheckpointError: the file is shorter than its header says, or has none.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size:
                raise ValueError("header longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is no safetensors file: fetch it again") from error
    if size < 8 + length + end:
        raise CheckpointError(
            f"{path} is truncated ({size:,} of {8 + length + end:,} bytes): fetch it again"
        )
    yield from header.items()
