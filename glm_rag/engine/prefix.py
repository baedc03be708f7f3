"""P-tuning v2 prefixes (arXiv 2110.07602): trained keys and values in front of every sequence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.shards import read_shard
from glm_rag.engine.weight_files import find_weight_files
from glm_rag.errors import CheckpointError, ConfigError

PREFIX_ENCODER = "prefix_encoder."
_PROJECTION = ("trans.0.weight", "trans.0.bias", "trans.2.weight", "trans.2.bias")


def read_prefix(path: Path) -> dict[str, Tensor]:
    """Prefix encoder weights of a file or folder, names without their prefixes.

    Raises:
        ConfigError: nothing is there.
        CheckpointError: damaged, or without prefix encoder weights.
    """
    if not path.exists():
        raise ConfigError(f"prefix_checkpoint {path} does not exist")
    weights: dict[str, Tensor] = {}
    for shard in find_weight_files(path) if path.is_dir() else [path]:
        for name, value in read_shard(shard).items():
            short = name.removeprefix("transformer.")
            if short.startswith(PREFIX_ENCODER) or short in ("embedding.weight", *_PROJECTION):
                weights[short.removeprefix(PREFIX_ENCODER)] = value
    if not weights:
        raise CheckpointError(f"{path} holds no prefix_encoder weights")
    return weights


def prefix_cache(config: ModelConfig, weights: Mapping[str, Tensor]) -> Tensor:
    """Keys and values `[L, 2, G, P, D]` in float32 from prefix encoder weights.

    Raises:
        CheckpointError: a tensor is missing, unknown or of the wrong shape.
    """
    values = {name: tensor.float() for name, tensor in weights.items()}
    length = len(values["embedding.weight"]) if "embedding.weight" in values else 0
    if config.pre_seq_len not in (None, length):
        raise CheckpointError(
            f"the prefix has {length} tokens but config.json says {config.pre_seq_len}"
        )
    _check_shapes(values, _expected_shapes(config, length, projected="trans.0.weight" in values))
    rows = values["embedding.weight"]  # [P, W]
    if "trans.0.weight" in values:
        hidden = torch.tanh(rows @ values["trans.0.weight"].T + values["trans.0.bias"])
        rows = hidden @ values["trans.2.weight"].T + values["trans.2.bias"]
    shape = (length, config.num_layers, 2, config.num_kv_groups, config.kv_channels)
    return rows.view(shape).permute(1, 2, 3, 0, 4)


def _expected_shapes(
    config: ModelConfig, length: int, *, projected: bool
) -> dict[str, tuple[int, ...]]:
    width, hidden = config.cache_values_per_token, config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (length, width)}
    if projected or config.prefix_projection:
        projection = ((hidden, width), (hidden,), (width, hidden), (width,))
        shapes |= dict(zip(_PROJECTION, projection, strict=True))
    return shapes


def _check_shapes(values: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in expected.items():
        if name not in values:
            raise CheckpointError(f"the prefix checkpoint lacks {PREFIX_ENCODER}{name}")
        if tuple(values[name].shape) != shape:
            raise CheckpointError(
                f"{PREFIX_ENCODER}{name} has shape {list(values[name].shape)}, "
                f"this model asks for {list(shape)}"
            )
    for name in values.keys() - expected.keys():
        raise CheckpointError(f"the prefix checkpoint holds the unknown {PREFIX_ENCODER}{name}")
