"""Checkpoint folders: find the weight files, check every tensor, load shard by shard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.memory import require_memory
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.prefix import PREFIX_ENCODER, prefix_cache, read_prefix
from glm_rag.engine.rotary import RopeTable, rotary_table
from glm_rag.engine.shards import read_shard
from glm_rag.engine.weight_files import find_weight_files
from glm_rag.errors import CheckpointError, ConfigError, ModelError

_ROOT = "transformer."
# A buffer of the published model; the rotary table is computed here instead.
_IGNORED = "rotary_pos_emb.inv_freq"
_SHOWN_NAMES = 3


def load_model(
    folder: Path,
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    rope_table: RopeTable = "float32",
    prefix_checkpoint: Path | None = None,
) -> ChatGLM2Model:
    """Build the network from the weight files of a checkpoint folder.

    Weights replace empty ones shard by shard, so memory never holds them twice; where no cast
    is needed they stay mapped from the file.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is missing, unknown or of the
            wrong shape; the message names it.
        ModelError: quantized weights, or too little memory.
    """
    if config.quantization_bit:
        raise ModelError(
            f"this checkpoint is quantized to {config.quantization_bit} bits; this version runs "
            "16- and 32-bit checkpoints: pull the unquantized model"
        )
    needed = config.num_parameters * dtype.itemsize
    require_memory(needed, device, f"the model in {str(dtype).removeprefix('torch.')}")
    with torch.device("meta"):
        model = ChatGLM2Model(config)
    prefix = _fill(model, folder, config, dtype, device)
    if prefix_checkpoint is not None:
        prefix = read_prefix(prefix_checkpoint)
    attach_tables(model, rope_table=rope_table, prefix=prefix)
    return model


def attach_tables(
    model: ChatGLM2Model,
    *,
    rope_table: RopeTable = "float32",
    prefix: Mapping[str, Tensor] | None = None,
) -> None:
    """Give a model with weights its rotary table and, from prefix weights, its prefix."""
    config = model.config
    if rope_table not in ("float32", "checkpoint"):
        raise ConfigError(f"rope_table must be float32 or checkpoint, not {rope_table!r}")
    table_bytes = 3 * 4 * config.seq_length * config.rotary_dim  # the table and what it is made of
    require_memory(table_bytes, torch.device("cpu"), f"positions of {config.seq_length} tokens")
    model.rotary = rotary_table(config, rope_table, model.dtype).to(model.device)
    if prefix:
        columns = prefix_cache(config, prefix)
        model.prefix = columns.to(device=model.device, dtype=model.dtype)
    elif config.pre_seq_len is not None:
        raise CheckpointError(
            f"config.json names a prefix of {config.pre_seq_len} tokens that is not in the "
            "checkpoint: set prefix_checkpoint to its file"
        )
    model.requires_grad_(requires_grad=False).eval()


def _fill(
    model: ChatGLM2Model,
    folder: Path,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Tensor]:
    """Assign all weights; return those of a prefix encoder."""
    missing = {name: value.shape for name, value in model.state_dict().items()}
    prefix: dict[str, Tensor] = {}
    for path in find_weight_files(folder):
        weights = {}
        for full_name, value in read_shard(path).items():
            name = full_name.removeprefix(_ROOT)
            if name == _IGNORED:
                continue
            if config.pre_seq_len is not None and name.startswith(PREFIX_ENCODER):
                prefix[name.removeprefix(PREFIX_ENCODER)] = value
                continue
            _check_tensor(path, full_name, value, missing.pop(name, None))
            weights[name] = value.to(device=device, dtype=dtype)
        _assign(model, weights)
    if missing:
        raise CheckpointError(f"the checkpoint in {folder} lacks {_few(missing)}: fetch it again")
    return prefix


def _check_tensor(path: Path, name: str, value: Tensor, expected: torch.Size | None) -> None:
    if expected is None:
        raise CheckpointError(
            f"{path} holds the tensor {name}, which is none of this model's or there twice"
        )
    if value.shape != expected:
        raise CheckpointError(
            f"{path}: {name} has shape {list(value.shape)}, config.json asks for {list(expected)}"
        )
    if not value.is_floating_point():
        raise CheckpointError(f"{path}: {name} holds {value.dtype} values, not floating point")


def _assign(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    parameters = {k: nn.Parameter(v, requires_grad=False) for k, v in weights.items()}
    model.load_state_dict(parameters, strict=False, assign=True)


def _few(names: Mapping[str, object]) -> str:
    shown = ", ".join(_ROOT + name for name in list(names)[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return f"the tensors {shown} and {more} more" if more > 0 else f"the tensor(s) {shown}"
