"""Write a ChatGLM2-form checkpoint as a stock `GlmForCausalLM` folder, block by block."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from glm_rag.engine.config import ModelConfig
from glm_rag.models.export.glm_config import ExportTokenizer, glm_config
from glm_rag.models.export.glm_names import glm_parts
from glm_rag.models.export.parts import Part, part_bytes
from glm_rag.models.export.source_tensors import SourceTensors
from glm_rag.models.storage import OnProgress

_KINDS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_ALIGNMENT = 64


def plan_shards(parts: Sequence[Part], itemsize: int, max_bytes: int) -> list[list[Part]]:
    """Cut the tensors into files of at most `max_bytes`; a larger one has a file to itself."""
    shards: list[list[Part]] = [[]]
    room = max_bytes
    for part in parts:
        size = part.num_values * itemsize
        if shards[-1] and size > room:
            shards.append([])
            room = max_bytes
        shards[-1].append(part)
        room -= size
    return shards


def write_glm_hf(
    source: SourceTensors,
    tokenizer: ExportTokenizer,
    config: ModelConfig,
    folder: Path,
    *,
    dtype: torch.dtype,
    max_shard: int,
    on_progress: OnProgress,
) -> int:
    """Write all files of the export into `folder` and return the number of weight files.

    Raises:
        ModelError: a value is too large for float16.
    """
    shards = plan_shards(list(glm_parts(config)), dtype.itemsize, max_shard)
    total = sum(part.num_values for shard in shards for part in shard) * dtype.itemsize
    written = 0
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        name = "model.safetensors" if len(shards) == 1 else name
        weight_map |= {part.name: name for part in shard}
        for size in _write_shard(folder / name, source, shard, dtype):
            written += size
            on_progress("writing", written, total)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index)
    kind = str(dtype).removeprefix("torch.")
    settings = glm_config(config, dtype=kind, eos=tokenizer.eos_ids, pad=tokenizer.pad_id)
    write_json(folder / "config.json", settings)
    generation = tokenizer.generation_config(config.padded_vocab_size)
    write_json(folder / "generation_config.json", generation)
    write_json(folder / "tokenizer_config.json", tokenizer.config())
    (folder / "tokenizer.json").write_text(tokenizer.definition, encoding="utf-8")
    return len(shards)


def _write_shard(
    path: Path, source: SourceTensors, parts: Sequence[Part], dtype: torch.dtype
) -> Iterator[int]:
    """Write one safetensors file; yields the bytes of each block that is in it."""
    with path.open("wb") as file:
        file.write(_header(parts, dtype))
        for part in parts:
            for block in part_bytes(source, part, dtype):
                yield file.write(block)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON file."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _header(parts: Sequence[Part], dtype: torch.dtype) -> bytes:
    """What stands before the values of a safetensors file: its length, then JSON."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for part in parts:
        start, end = end, end + part.num_values * dtype.itemsize
        header[part.name] = {
            "dtype": _KINDS[dtype],
            "shape": part.shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
