"""`export_model`: from a checkpoint folder to another engine's form, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from glm_rag.engine.config import ModelConfig
from glm_rag.errors import ConfigError, MissingDependencyError, ModelError
from glm_rag.models.check import check_folder
from glm_rag.models.storage import OnProgress, folder_size, no_progress

if TYPE_CHECKING:
    import torch

FORMATS = ("glm-hf", "gguf")
DTYPES = ("auto", "float32", "bfloat16", "float16")
MIN_SHARD = 1_000_000
# Copied along: the terms that have to go with every copy, and what `llm.tokenizer` counts with.
_ALONG = ("MODEL_LICENSE", "LICENSE", "tokenizer.model")
_OTHER_FILES = 50_000_000  # tokenizer, JSON and what a file system adds


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
        form: one of `FORMATS`.
        dtype: of the weights; auto: as stored, float16 where they are quantized.
        max_shard: most bytes of one weight file; gguf is one file always.
        rope_mode: how `rope_ratio` acts, where config.json does not tell.

    Raises:
        ConfigError: an argument is wrong, or `target` holds something.
        ModelError: the source is broken or has no exact form there, or the disk is too small.
        MissingDependencyError: torch is not installed.
    """
    _check_arguments(target, form, dtype, max_shard)
    config = _check_source(source, form, rope_mode)
    try:
        from glm_rag.models.export.glm_config import ExportTokenizer
        from glm_rag.models.export.source_tensors import SourceTensors
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "torch", "engine") from error
    on_progress("reading", 0, None)
    tokenizer = ExportTokenizer(source, config)
    tensors = SourceTensors(source, config)
    kind = _dtype(dtype, tensors.dtype)
    with _appearing(target) as folder:
        _check_space(folder, config.num_parameters * kind.itemsize)
        if form == "gguf":
            from glm_rag.models.export.gguf_model import write_gguf

            model = source / "tokenizer.model"
            num_files = write_gguf(
                tensors, model, config, folder, dtype=kind, on_progress=on_progress
            )
        else:
            from glm_rag.models.export.glm_hf import write_glm_hf

            num_files = write_glm_hf(
                tensors,
                tokenizer,
                config,
                folder,
                dtype=kind,
                max_shard=max_shard,
                on_progress=on_progress,
            )
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
        notes=_notes(config, form, tensors.is_quantized),
    )


def _check_arguments(target: Path, form: str, dtype: str, max_shard: int) -> None:
    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r}: use {' or '.join(FORMATS)}")
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if max_shard < MIN_SHARD:
        raise ConfigError(f"a weight file must have room for {MIN_SHARD:,} bytes or more")
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise ConfigError(f"{target} is no folder: choose another one with --out")
        if target.is_dir() and any(target.iterdir()):
            raise ConfigError(f"{target} is not empty: choose another folder with --out")
    except OSError as error:
        raise ConfigError(f"cannot look at {target}: {error.strerror or error}") from error


def _check_source(source: Path, form: str, rope_mode: str) -> ModelConfig:
    config = ModelConfig.from_folder(source, rope_mode=rope_mode)
    if config.pre_seq_len is not None:
        raise ModelError(
            f"{source} holds a P-tuning prefix, which other engines have no place for: export the "
            "model without it"
        )
    check_folder(source)
    if form == "gguf":
        _check_gguf(config, source)
    return config


def _check_gguf(config: ModelConfig, source: Path) -> None:
    """Refuse what llama.cpp's architecture `chatglm` has no form for."""
    if config.num_attention_heads * config.kv_channels != config.hidden_size:
        raise ModelError(
            f"llama.cpp wants heads x kv_channels to be the hidden size, {source} has "
            f"{config.num_attention_heads} x {config.kv_channels} and {config.hidden_size}: "
            "use --format glm-hf"
        )
    if config.tokenizer_kind == "chatml" or not (source / "tokenizer.model").is_file():
        raise ModelError(
            f"GGUF is written with ChatGLM2's tokenizer.model only, and {source} has none: use "
            "--format glm-hf"
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


def _check_space(folder: Path, weights: int) -> None:
    free, wanted = shutil.disk_usage(folder).free, weights + _OTHER_FILES
    if free < wanted:
        raise ModelError(
            f"not enough space in {folder.parent}: {wanted / 1e9:.1f} GB needed, "
            f"{free / 1e9:.1f} GB free; make room or choose another disk with --out"
        )


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` that becomes it when the body ends without an error."""
    partial = target.parent / f".{target.name}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(target.parent):
            shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
            partial.mkdir()
            try:
                yield partial
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"cannot write to {target}: {reason}") from error


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other exports out of a folder; the system frees the lock when the process dies."""
    import fcntl  # absent on Windows

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModelError(f"another export is writing into {folder}: wait for it") from error
        yield
    finally:
        os.close(descriptor)


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
