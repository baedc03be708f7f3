"""From a name or folder to a loaded engine that the whole process shares, and facts about it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.weight_files import find_weight_files
from glm_rag.errors import MissingDependencyError, ModelNotFoundError
from glm_rag.models.check import safetensors_header
from glm_rag.models.registry import MODELS, ModelSpec, unknown_model
from glm_rag.settings import ModelSettings, expand_user

if TYPE_CHECKING:
    from glm_rag.engine.engine import Engine

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_SAFETENSORS_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a checkpoint folder without loading it. Sizes in bytes.

    Attributes:
        file_dtype: type of the stored weights; int4 or int8 where quantized.
        size_bytes: of the weight files.
        memory_bytes: weights in memory, by the dtype they are loaded in.
        kv_bytes_per_token: KV cache of one token, by dtype.
        full_window_bytes: weights plus the cache of a full context window, by dtype.
        tokenizer: file that the tokenizer reads.
    """

    path: str
    name: str
    title: str
    license: str
    num_parameters: int
    file_dtype: str
    size_bytes: int
    context_window: int
    rope_mode: str
    rope_ratio: float
    memory_bytes: Mapping[str, int]
    kv_bytes_per_token: Mapping[str, int]
    full_window_bytes: Mapping[str, int]
    tokenizer: str
    note: str


def resolve(name_or_path: str, models_dir: Path) -> Path:
    """The folder of a model.

    Args:
        name_or_path: a registry name, the name of a folder in `models_dir`, or a path.

    Raises:
        ModelNotFoundError: unknown, not pulled yet, or no model folder; the message says what
            to do.
    """
    folder = models_dir / name_or_path
    if name_or_path in MODELS:
        return _pulled(name_or_path, folder)
    path = expand_user(name_or_path)
    try:
        for candidate in (path, folder):
            if name_or_path and (candidate / "config.json").is_file():
                return candidate
        is_path = path.is_dir() or len(path.parts) > 1
    except OSError as error:  # no permission to look, a name too long for the file system
        raise ModelNotFoundError(f"cannot look at {name_or_path}: {error.strerror}") from error
    if is_path:
        raise ModelNotFoundError(f"{name_or_path} is no model folder: it has no config.json")
    raise ModelNotFoundError(f"{unknown_model(name_or_path)} (or pass a checkpoint folder)")


def _pulled(name: str, folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    if folder.is_symlink():
        raise ModelNotFoundError(
            f"the folder registered for {name}, {folder.readlink()}, is gone: bring it back or run "
            f"`glm-rag model pull {name}` with another source"
        )
    raise ModelNotFoundError(
        f"model {name} is not on this machine: run `glm-rag model pull {name}`"
    )


class _Key(NamedTuple):
    """Whatever makes two engines differ."""

    folder: Path
    dtype: str
    device: str
    threads: int | None
    rope_mode: str
    rope_table: Literal["float32", "checkpoint"]
    prefix_checkpoint: Path | None
    kv_cache: str
    quantize: str
    group: int
    embedding_bits: int


@dataclass(slots=True)
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    engine: Engine | None = None


_slots: dict[_Key, _Slot] = {}
_slots_lock = threading.Lock()


def open_engine(settings: ModelSettings, models_dir: Path) -> Engine:
    """The engine of these settings, loaded once per process and shared by all callers.

    Threads that ask for the same engine at once wait for one load; other engines load meanwhile.
    A load that fails is tried again by the next call.

    Raises:
        ModelNotFoundError: see `resolve`.
        ModelError: the checkpoint is broken, or this version cannot run it.
        MissingDependencyError: torch is not installed.
    """
    folder = resolve(settings.name, models_dir).resolve()
    key = _Key(
        folder,
        settings.dtype,
        settings.device,
        settings.threads,
        settings.rope_mode,
        settings.rope_table,
        settings.prefix_checkpoint,
        settings.kv_cache,
        settings.quantize,
        settings.group,
        settings.embedding_bits,
    )
    with _slots_lock:
        slot = _slots.setdefault(key, _Slot())
    with slot.lock:
        if slot.engine is None:
            slot.engine = _load(key)
        return slot.engine


def _load(key: _Key) -> Engine:
    try:
        from glm_rag.engine.engine import Engine
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "torch", "engine") from error
    return Engine.load(
        key.folder,
        dtype=key.dtype,
        device=key.device,
        threads=key.threads,
        rope_mode=key.rope_mode,
        rope_table=key.rope_table,
        prefix_checkpoint=key.prefix_checkpoint,
        kv_cache=key.kv_cache,
        quantize=key.quantize,
        group=key.group,
        embedding_bits=key.embedding_bits,
    )


def loaded_engines() -> list[Engine]:
    """The engines that are shared at present, each of which holds its weights in memory."""
    with _slots_lock:
        return [slot.engine for slot in _slots.values() if slot.engine is not None]


def release_engines() -> int:
    """Forget every shared engine and return how many there were.

    Memory is freed once the last caller drops its own reference.
    """
    with _slots_lock:
        released = sum(slot.engine is not None for slot in _slots.values())
        _slots.clear()
    return released


def model_info(folder: Path) -> ModelInfo:
    """Read what a checkpoint folder says about itself; loads no weights.

    Raises:
        ModelNotFoundError: no model folder. ModelError: broken, or of another architecture.
    """
    config = ModelConfig.from_folder(folder).quantized("auto")
    files = find_weight_files(folder)
    spec = _spec_of(config, folder)
    weights = {dtype: config.weight_bytes(size) for dtype, size in _BYTES.items()}
    cache = {dtype: config.cache_values_per_token * size for dtype, size in _BYTES.items()}
    return ModelInfo(
        path=str(folder),
        name=spec.name if spec else config.name or folder.name,
        title=spec.title if spec else "",
        license=spec.license.name if spec else _license_file(folder),
        num_parameters=config.num_parameters,
        file_dtype=_file_dtype(config, files[0]),
        size_bytes=sum(path.stat().st_size for path in files),
        context_window=config.seq_length,
        rope_mode=config.rope_mode,
        rope_ratio=config.rope_ratio,
        memory_bytes=weights,
        kv_bytes_per_token=cache,
        full_window_bytes={d: weights[d] + config.seq_length * cache[d] for d in _BYTES},
        tokenizer=_tokenizer_file(folder),
        note=spec.note if spec else "",
    )


def _spec_of(config: ModelConfig, folder: Path) -> ModelSpec | None:
    """The registry's entry, by the name a model was pulled under or was converted with."""
    return MODELS.get(folder.name) or MODELS.get(config.name)


def _license_file(folder: Path) -> str:
    for name in ("MODEL_LICENSE", "LICENSE"):
        if (folder / name).is_file():
            return f"see {folder / name}"
    return "unknown: see where the model came from"


def _tokenizer_file(folder: Path) -> str:
    present = [n for n in ("tokenizer.model", "tokenizer.json") if (folder / n).is_file()]
    return present[0] if present else "missing"


def _file_dtype(config: ModelConfig, weights: Path) -> str:
    if config.quantization:
        return f"int{config.quantization.bits}"
    if weights.suffix != ".safetensors":
        raw = json.loads((weights.parent / "config.json").read_text(encoding="utf-8"))
        return str(raw.get("torch_dtype", "float16"))
    dtypes = {tensor["dtype"] for _name, tensor in safetensors_header(weights)}
    return "/".join(sorted(_SAFETENSORS_DTYPES.get(dtype, dtype) for dtype in dtypes))
