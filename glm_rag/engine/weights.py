"""Checkpoint folders: find the weight files, check every tensor, load shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.kernels.backend import choose_backend
from glm_rag.engine.linear import QuantizedEmbedding, QuantizedLinear, QuantizedMatrix
from glm_rag.engine.memory import require_memory
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.native_blocks import NativeBlocks
from glm_rag.engine.prefix import PREFIX_ENCODER, prefix_cache, read_prefix
from glm_rag.engine.quantize import QuantizedTensor, from_official, quantize
from glm_rag.engine.rotary import RopeTable, rotary_table
from glm_rag.engine.shards import read_shard
from glm_rag.engine.weight_files import find_weight_files
from glm_rag.errors import CheckpointError, ConfigError

_ROOT = "transformer."
# A buffer of the published model; the rotary table is computed here instead.
_IGNORED = "rotary_pos_emb.inv_freq"
# Behind a matrix's name in published quantized checkpoints: one scale per row.
_ROW_SCALE = ".weight_scale"
_QUANTIZED_PARTS = (".packed", ".scales")
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
    is needed they stay mapped from the file. With `config.quantization`, 16- and 32-bit matrices
    are rounded as they come, and those of published int4 and int8 checkpoints are laid out anew,
    value for value.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is missing, unknown or of the
            wrong shape; the message names it.
        ModelError: too little memory.
    """
    model, prefix = _read(folder, config, dtype, device)
    if prefix_checkpoint is not None:
        prefix = read_prefix(prefix_checkpoint)
    attach_tables(model, rope_table=rope_table, prefix=prefix)
    if config.quantization:
        attach_kernels(model)
    return model


def read_checkpoint(
    folder: Path, config: ModelConfig, on_progress: Callable[[str, int, int | None], None]
) -> dict[str, Tensor]:
    """Tensors of a checkpoint by published name, as `config.quantization` has them; the rest in
    float32. Errors as for `load_model`.

    Args:
        on_progress: is told the step, tensors done and tensors in all.
    """
    model, prefix = _read(folder, config, torch.float32, torch.device("cpu"), on_progress)
    tensors = {_ROOT + name: value for name, value in model.state_dict().items()}
    return tensors | {_ROOT + PREFIX_ENCODER + name: value for name, value in prefix.items()}


def _read(
    folder: Path,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: Callable[[str, int, int | None], None] | None = None,
) -> tuple[ChatGLM2Model, dict[str, Tensor]]:
    """A model with its weights but without tables and kernels, and those of a prefix encoder."""
    needed = config.weight_bytes(dtype.itemsize)
    require_memory(needed, device, f"the model in {_kind(config, dtype)}")
    with torch.device("meta"):
        model = ChatGLM2Model(config)
    return model, _fill(model, folder, config, dtype, device, on_progress)


def attach_kernels(model: ChatGLM2Model, prefer: str = "auto") -> None:
    """Choose what multiplies quantized weights on this machine.

    Args:
        prefer: auto, or a backend by name, such as native-avx2 or torch.
    """
    backend = choose_backend(model.device, prefer=prefer)
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            module.multiply = backend.linear
        elif isinstance(module, QuantizedEmbedding):
            module.dtype = model.dtype
    model.backend, model.native = backend, None
    layers = model.encoder.layers
    if backend.library is not None and NativeBlocks.serves(model.config, model.dtype, layers):
        model.native = NativeBlocks(backend.library, model.config, layers)


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
    on_progress: Callable[[str, int, int | None], None] | None,
) -> dict[str, Tensor]:
    """Assign all weights; return those of a prefix encoder."""
    missing = {name: value.shape for name, value in model.state_dict().items()}
    total = len(missing)
    matrices = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, QuantizedMatrix)
    }
    prefix: dict[str, Tensor] = {}
    for path in find_weight_files(folder):
        weights = {}
        shard = {name.removeprefix(_ROOT): value for name, value in read_shard(path).items()}
        for name, value in shard.items():
            if name == _IGNORED or _is_row_scale(name, matrices):
                continue
            if config.pre_seq_len is not None and name.startswith(PREFIX_ENCODER):
                prefix[name.removeprefix(PREFIX_ENCODER)] = value
                continue
            for part, tensor in _parts(path, name, shard, matrices, config):
                _check_tensor(path, part, tensor, missing.pop(part, None))
                kept = tensor.dtype if part.endswith(_QUANTIZED_PARTS) else dtype
                weights[part] = tensor.to(device=device, dtype=kept)
            if on_progress is not None:
                on_progress("reading", total - len(missing), total)
        _assign(model, weights)
    if missing:
        raise CheckpointError(f"the checkpoint in {folder} lacks {_few(missing)}: fetch it again")
    return prefix


def _is_row_scale(name: str, matrices: Mapping[str, QuantizedMatrix]) -> bool:
    return name.endswith(_ROW_SCALE) and name.removesuffix("_scale") in matrices


def _parts(
    path: Path,
    name: str,
    shard: Mapping[str, Tensor],
    matrices: Mapping[str, QuantizedMatrix],
    config: ModelConfig,
) -> Iterator[tuple[str, Tensor]]:
    """A tensor of the file under the names that the model has for it."""
    if name not in matrices:
        yield name, shard[name]
        return
    quantized = _quantized(path, name, shard, matrices[name], config)
    for part in _QUANTIZED_PARTS:
        yield name.removesuffix(".weight") + part, getattr(quantized, part[1:])


def _quantized(
    path: Path,
    name: str,
    shard: Mapping[str, Tensor],
    matrix: QuantizedMatrix,
    config: ModelConfig,
) -> QuantizedTensor:
    """A matrix of a 16- or 32-bit or a published quantized checkpoint in this model's layout."""
    value, columns = shard[name], matrix.columns
    if value.dtype != torch.int8:
        _check_tensor(path, name, value, torch.Size((matrix.rows, columns)))
        return quantize(value, matrix.bits, matrix.group)
    scale = shard.get(name + "_scale")
    if scale is None:
        raise CheckpointError(f"{path} lacks {_ROOT}{name}_scale: fetch the model again")
    bits = config.quantization_bit
    _check_shape(path, name, value, torch.Size((matrix.rows, columns * bits // 8)))
    _check_shape(path, name + "_scale", scale, torch.Size((matrix.rows,)))
    return from_official(value, scale, bits)


def _check_tensor(path: Path, name: str, value: Tensor, expected: torch.Size | None) -> None:
    if expected is None:
        raise CheckpointError(
            f"{path} holds the tensor {_ROOT}{name}, which is none of this model's or there twice"
        )
    _check_shape(path, name, value, expected)
    packed, scales = _QUANTIZED_PARTS
    wanted = {packed: torch.uint8, scales: torch.float16}
    exact = wanted.get(name[name.rfind(".") :])
    if value.dtype != exact if exact else not value.is_floating_point():
        kind = str(exact or "floating point").removeprefix("torch.")
        raise CheckpointError(f"{path}: {_ROOT}{name} holds {value.dtype} values, not {kind}")


def _check_shape(path: Path, name: str, value: Tensor, expected: torch.Size) -> None:
    if value.shape != expected:
        raise CheckpointError(
            f"{path}: {_ROOT}{name} has shape {list(value.shape)}, "
            f"config.json asks for {list(expected)}"
        )


def _kind(config: ModelConfig, dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return f"int{config.quantization.bits}" if config.quantization else name


def _assign(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    state = {
        name: value if name.endswith(_QUANTIZED_PARTS) else nn.Parameter(value, requires_grad=False)
        for name, value in weights.items()
    }
    model.load_state_dict(state, strict=False, assign=True)


def _few(names: Mapping[str, object]) -> str:
    shown = ", ".join(_ROOT + name for name in list(names)[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return f"the tensors {shown} and {more} more" if more > 0 else f"the tensor(s) {shown}"
