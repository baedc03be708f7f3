"""Values computed once by the published ChatGLM2-6B-32K code, and the weights it used."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from glm_rag.engine.config import ModelConfig

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))
TINY_MODEL = GOLDEN["official_tiny_model"]
RESULTS = TINY_MODEL["results"]
INPUT_IDS = TINY_MODEL["input_ids"]
TOLERANCE = 1e-4


def golden_config(**changes) -> ModelConfig:
    """The tiny model's configuration as a ModelConfig; `changes` override JSON keys."""
    raw = {
        "multi_query_attention": True,
        "model_type": "chatglm",
        "rope_mode": "interpolate",
        **TINY_MODEL["config"],
    }
    return ModelConfig.from_dict(raw | changes)


def golden_tensor(name: str, shape: list[int]) -> torch.Tensor:
    """Weights by the closed formula that golden.json states as `weight_rule`."""
    count = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(zlib.crc32(name.encode())) + count * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    v = 2 * ((z >> np.uint64(11)).astype(np.float64) * 2.0**-53) - 1
    if "layernorm" in name:
        v = 1 + 0.1 * v
    elif name.endswith("bias"):
        v = 0.1 * v
    else:
        v = (1.7 if "embed" in name else 0.25) * v
    return torch.from_numpy(v.astype(np.float32)).view(shape)


def golden_weights(extra: dict[str, list[int]] | None = None) -> dict[str, torch.Tensor]:
    """All weights of the tiny model, with those of a prefix encoder if asked for."""
    shapes = RESULTS["tensor_shapes"] | (extra or {})
    return {name: golden_tensor(name, shape) for name, shape in shapes.items()}
