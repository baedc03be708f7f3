"""What is refused before a byte is written: wrong arguments, and models without a form there."""

from __future__ import annotations

from pathlib import Path

from glm_rag.engine.config import ModelConfig
from glm_rag.errors import ConfigError, ModelError
from glm_rag.models.check import check_folder

_FORMATS = ("glm-hf", "gguf")
_DTYPES = ("auto", "float32", "bfloat16", "float16")
_MIN_SHARD = 1_000_000


def check_arguments(target: Path, form: str, dtype: str, max_shard: int) -> None:
    """Refuse what `export_model` cannot do, and a target that holds something.

    Raises:
        ConfigError: so it is.
    """
    if form not in _FORMATS:
        raise ConfigError(f"unknown format {form!r}: use {' or '.join(_FORMATS)}")
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
    if max_shard < _MIN_SHARD:
        raise ConfigError(f"a weight file must have room for {_MIN_SHARD:,} bytes or more")
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise ConfigError(f"{target} is no folder: choose another one with --out")
        if target.is_dir() and any(target.iterdir()):
            raise ConfigError(f"{target} is not empty: choose another folder with --out")
    except OSError as error:
        raise ConfigError(f"cannot look at {target}: {error.strerror or error}") from error


def check_source(source: Path, form: str, rope_mode: str) -> ModelConfig:
    """The configuration of a folder that is whole and has an exact form there.

    Raises:
        ModelError: it is broken, or has none.
    """
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
