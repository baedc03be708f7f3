"""`export_model`: from a checkpoint folder to another engine's form, whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from glm_rag.engine.config import ModelConfig
from glm_rag.errors import MissingDependencyError
from glm_rag.models.export.appearing import appearing, check_space
from glm_rag.models.export.refusals import check_arguments, check_source
from glm_rag.models.storage import OnProgress, folder_size, no_progress

if TYPE_CHECKING:
    import torch

    from glm_rag.models.export.glm_config import ExportTokenizer
    from glm_rag.models.export.source_tensors import SourceTensors

# Copied along: the terms that have to go with every copy, and what `llm.tokenizer` counts with.
_ALONG = ("MODEL_LICENSE", "LICENSE", "tokenizer.model")


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote. Sizes in bytes.

    Attributes:
        dtype: of the written weights. num_files: that hold them.
        context_window: tokens.
        notes: what the caller should know, one sentence each.
    """

    path: str
    format: str
    dtype: str
    num_parameters: int
    num_files: int
    size_bytes: int
    context_window: int
    notes: tuple[str, ...] = ()


def export_model(
    source: Path,
    target: Path,
    *,
    form: str = "glm-hf",
    dtype: str = "auto",
    max_shard: int = 4_000_000_000,
    rope_mode: Literal["auto", "interpolate", "scale_base"] = "auto",
    on_progress: OnProgress = no_progress,
) -> ExportReport:
    """Write the model in the folder `source` to the new folder `target`.

    Source files are mapped and written on in blocks of some MB, so memory stays small whatever the
    size. `target` appears when everything in it is complete.

    Args:
        form: glm-hf or gguf.
        dtype: of the weights; auto: as stored, float16 where they are quantized.
        max_shard: most bytes of one weight file; gguf is one file always.
        rope_mode: how `rope_ratio` acts, where config.json does not tell.

    Raises:
        ConfigError: an argument is wrong, or `target` holds something.
        ModelError: the source is broken or has no exact form there, or the disk is too small.
        MissingDependencyError: torch is not installed.
    """
    check_arguments(target, form, dtype, max_shard)
    config = check_source(source, form, rope_mode)
    on_progress("reading", 0, None)
    opened = _open(source, config)
    kind = _dtype(dtype, opened.tensors.dtype)
    with appearing(target) as folder:
        check_space(folder, config.num_parameters * kind.itemsize)
        num_files = _write(opened, folder, form, kind, max_shard, on_progress)
        for name in _ALONG:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    return ExportReport(
        path=str(target),
        format=form,
        dtype=str(kind).removeprefix("torch."),
        num_parameters=config.num_parameters,
        num_files=num_files,
        size_bytes=folder_size(target),
        context_window=config.seq_length,
        notes=_notes(config, form, opened.tensors.is_quantized),
    )


@dataclass(frozen=True, slots=True)
class _Opened:
    """A source folder whose files are mapped, and whose tokenizer is read."""

    folder: Path
    config: ModelConfig
    tensors: SourceTensors
    tokenizer: ExportTokenizer


def _open(source: Path, config: ModelConfig) -> _Opened:
    try:
        from glm_rag.models.export.glm_config import ExportTokenizer
        from glm_rag.models.export.source_tensors import SourceTensors
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "torch", "engine") from error
    tokenizer = ExportTokenizer(source, config)
    return _Opened(source, config, SourceTensors(source, config), tokenizer)


def _write(
    opened: _Opened,
    folder: Path,
    form: str,
    dtype: torch.dtype,
    max_shard: int,
    on_progress: OnProgress,
) -> int:
    """Write weights and tokenizer; the number of weight files."""
    tensors, config = opened.tensors, opened.config
    if form == "gguf":
        from glm_rag.models.export.gguf_model import write_gguf

        model = opened.folder / "tokenizer.model"
        return write_gguf(tensors, model, config, folder, dtype=dtype, on_progress=on_progress)
    from glm_rag.models.export.glm_hf import write_glm_hf

    return write_glm_hf(
        tensors,
        opened.tokenizer,
        config,
        folder,
        dtype=dtype,
        max_shard=max_shard,
        on_progress=on_progress,
    )


def _dtype(asked: str, stored: torch.dtype) -> torch.dtype:
    import torch

    if asked == "auto":
        return stored if stored in (torch.float32, torch.bfloat16) else torch.float16
    named: dict[str, torch.dtype] = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    return named[asked]


def _notes(config: ModelConfig, form: str, is_quantized: bool) -> tuple[str, ...]:
    notes = []
    if is_quantized:
        notes.append(
            "the source is rounded to few bits: these are the rounded values, as large as the "
            "16-bit checkpoint but not as good"
        )
    if form == "glm-hf" and config.position_divisor != 1:
        notes.append(
            f"positions are divided by {config.position_divisor:g}: the window of "
            f"{config.seq_length:,} tokens is max_position_embeddings times that factor"
        )
    return tuple(notes)
