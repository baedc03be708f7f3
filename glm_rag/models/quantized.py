"""Round a checkpoint once and save it in the layout that the kernels map from the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from glm_rag.engine.config import ModelConfig
from glm_rag.errors import ConfigError, MissingDependencyError
from glm_rag.models.check import check_folder
from glm_rag.models.storage import OnProgress, check_space, install, no_progress, writing

if TYPE_CHECKING:
    from torch import Tensor

# Copied along: what the tokenizer reads, and the terms that have to go with every copy.
_ALONG = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "MODEL_LICENSE", "LICENSE")
# Keys of a published config.json that say nothing about the saved model, or name remote code.
_DROPPED = ("auto_map", "architectures", "quantization_bit", "torch_dtype", "transformers_version")
_KINDS = {"torch.uint8": "U8", "torch.float32": "F32", "torch.float16": "F16"}
_ORDER = tuple(_KINDS)
_LINE = 64  # bytes of a cache line


def save_quantized(
    source: Path,
    target: Path,
    *,
    quantize: str,
    group: int = 32,
    embedding_bits: int = 8,
    on_progress: OnProgress = no_progress,
) -> Path:
    """Write `source` with rounded weights to the new folder `target`.

    Memory stays near the size of the result: the source is read file by file, and each matrix is
    rounded as it comes. A broken run leaves no folder behind.

    Args:
        source: a checkpoint of 16 or 32 bits, or a published int4 or int8 one.
        quantize: int4 or int8; auto for published quantized checkpoints.
        group: columns that share a scale, 32 or 128.
        embedding_bits: 8, 4, or 0 to leave embedding and output layer in 32 bits.

    Raises:
        ConfigError: `target` exists, or the numbers are wrong.
        ModelError: the source is broken, or memory or disk are too small.
        MissingDependencyError: torch is not installed.
    """
    if target.exists():
        raise ConfigError(f"{target} exists: choose another folder with --out, or delete it first")
    check_folder(source)
    config = ModelConfig.from_folder(source).quantized(quantize, group, embedding_bits)
    if config.quantization is None:
        raise ConfigError("name what to round the weights to: --quantize int4 or int8")
    try:
        from glm_rag.engine.weights import read_checkpoint
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "torch", "engine") from error
    partial = target.with_name(f".{target.name}.partial")
    with writing(target.parent):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            check_space(partial, config.weight_bytes(4))
            tensors = read_checkpoint(source, config, on_progress)
            on_progress("writing", 0, None)
            write_safetensors(partial / "model.safetensors", tensors)
            _write_config(source, partial, config)
            for name in _ALONG:
                if (source / name).is_file():
                    shutil.copyfile(source / name, partial / name)
            return install(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors one after the other, those of bytes first and each of them at a cache line.

    The library's own writer copies all of them in memory first, and aligns to 8 bytes only.
    """
    ordered = sorted(tensors.items(), key=lambda item: _ORDER.index(str(item[1].dtype)))
    header, end = {}, 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        kind = _KINDS[str(tensor.dtype)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % _LINE)  # 8: the length in front of it
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _name, tensor in ordered:
            file.write(tensor.contiguous().numpy().data)


def _write_config(source: Path, target: Path, config: ModelConfig) -> None:
    raw = json.loads((source / "config.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in raw.items() if key not in _DROPPED}
    quantization = config.quantization
    if quantization is None:
        raise ValueError("a model that is not quantized")
    kept |= {
        "rope_mode": config.rope_mode,
        "quantization": {
            "bits": quantization.bits,
            "group": quantization.group,
            "embedding_bits": quantization.embedding_bits,
        },
    }
    text = json.dumps(kept, indent=2, ensure_ascii=False)
    (target / "config.json").write_text(text + "\n", encoding="utf-8")
