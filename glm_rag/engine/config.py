"""What a checkpoint's `config.json` says about its architecture. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from glm_rag.errors import CheckpointError, ConfigError, ModelError, ModelNotFoundError

RopeMode = Literal["interpolate", "scale_base"]
TokenizerKind = Literal["auto", "chatglm2", "chatml"]

_DEFAULT_ROPE_THETA = 10000.0
_INTERPOLATING_NAMES = ("chatglm2", "codegeex2")
_BASE_SCALING_NAMES = ("chatglm3", "glm-4", "glm4")

_LARGEST_GROUP = 128
_LARGEST = 2**53  # integers up to here are exact as floating point numbers

# Switches of the published configuration that this engine implements in one position only.
_SUPPORTED_FLAGS = {
    "rmsnorm": True,
    "post_layer_norm": True,
    "original_rope": True,
    "add_bias_linear": False,
    "apply_residual_connection_post_layernorm": False,
    "fp32_residual_connection": False,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True, slots=True)
class Quantization:
    """How weights are rounded when they are loaded, or were when they were saved.

    Attributes:
        bits: 4 or 8, of the four matrices of each block.
        group: columns that share a scale, 32 or 128; 32 where 128 does not divide a matrix.
        embedding_bits: 4 or 8 for embedding and output layer; 0 keeps them as they are.
    """

    bits: int
    group: int = 32
    embedding_bits: int = 8

    def __post_init__(self) -> None:
        allowed = {"bits": (4, 8), "group": (32, 128), "embedding_bits": (0, 4, 8)}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                choices = ", ".join(map(str, values))
                raise ConfigError(f"quantization: {name} must be one of {choices}")

    def bytes_per_value(self, bits: int) -> float:
        """Of a matrix in `bits` bits, its scales included."""
        return bits / 8 + 2 / self.group


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape and rules of one ChatGLM2-form model; names as in the published `config.json`.

    Attributes:
        kv_channels: head dimension; heads x kv_channels need not equal hidden_size.
        num_kv_groups: KV heads (`multi_query_group_num`).
        seq_length: context window in tokens, the length of the rotary table.
        rope_mode: `interpolate` divides positions by rope_ratio (ChatGLM2, arXiv 2306.15595);
            `scale_base` multiplies the base by it (ChatGLM3, GLM-4).
        rope_theta: base of the rotary frequencies as used, with any scaling already in it.
        position_divisor: what positions are divided by before rotation.
        rotary_fraction: share of each head's dimensions that rotates.
        pre_seq_len: columns of a P-tuning v2 prefix inside the checkpoint, if any.
        quantization_bit: of a published checkpoint with one scale per row; 0 otherwise.
        quantization: of a checkpoint that was converted here; None otherwise.
    """

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    kv_channels: int
    num_attention_heads: int
    num_kv_groups: int
    padded_vocab_size: int
    seq_length: int
    layernorm_epsilon: float = 1e-5
    add_qkv_bias: bool = True
    rope_mode: RopeMode = "interpolate"
    rope_ratio: float = 1.0
    rope_theta: float = _DEFAULT_ROPE_THETA
    rotary_fraction: float = 0.5
    pre_seq_len: int | None = None
    prefix_projection: bool = False
    quantization_bit: int = 0
    quantization: Quantization | None = None
    tokenizer_kind: TokenizerKind = "auto"
    name: str = ""

    def __post_init__(self) -> None:
        for field in (
            "num_layers",
            "hidden_size",
            "ffn_hidden_size",
            "kv_channels",
            "num_attention_heads",
            "num_kv_groups",
            "padded_vocab_size",
            "seq_length",
            "layernorm_epsilon",
            "rope_ratio",
            "rope_theta",
        ):
            if not getattr(self, field) > 0:
                raise ConfigError(f"model config: {field} must be above 0")
        if self.num_attention_heads % self.num_kv_groups:
            raise ConfigError(
                f"model config: {self.num_attention_heads} heads cannot be shared by "
                f"{self.num_kv_groups} KV groups (multi_query_group_num)"
            )
        if self.kv_channels % 4:
            raise ConfigError("model config: kv_channels must be a multiple of 4")

    @property
    def position_divisor(self) -> float:
        """16 for ChatGLM2-6B-32K, else 1."""
        return self.rope_ratio if self.rope_mode == "interpolate" else 1.0

    @property
    def rotary_dim(self) -> int:
        """Dimensions of each head that rotate."""
        return int(self.kv_channels * self.rotary_fraction)

    @property
    def qkv_size(self) -> int:
        """Rows of the fused query, key and value projection."""
        return (self.num_attention_heads + 2 * self.num_kv_groups) * self.kv_channels

    def quantized(self, asked: str, group: int = 32, embedding_bits: int = 8) -> ModelConfig:
        """The config of this model as it will be in memory.

        Args:
            asked: int8, int4, or auto: as the checkpoint is. Published int4 and int8 checkpoints
                keep the values of their blocks, and `embedding_bits` rounds the rest.

        Raises:
            ConfigError: the checkpoint is quantized already, to another number of bits.
        """
        if asked not in ("auto", "int8", "int4"):
            raise ConfigError(f"quantize must be auto, int8 or int4, not {asked!r}")
        has = self.quantization.bits if self.quantization else self.quantization_bit
        if asked != "auto" and has not in (0, int(asked[3:])):
            raise ConfigError(
                f"this checkpoint holds int{has} weights and cannot become {asked}: "
                "set quantize to auto or take the 16-bit checkpoint"
            )
        if self.quantization or (asked == "auto" and not has):
            return self
        if self.quantization_bit:
            group = _LARGEST_GROUP  # one scale per row is the same scale in every group
        return replace(
            self, quantization=Quantization(has or int(asked[3:]), group, embedding_bits)
        )

    @property
    def num_parameters(self) -> int:
        """Values in all weights, without a prefix."""
        return self._num_matrix_values + self._num_embedding_values + self._num_other_values

    def weight_bytes(self, itemsize: int) -> int:
        """Bytes of all weights in memory.

        Args:
            itemsize: bytes of a value that is not quantized.
        """
        matrix = embedding = float(itemsize)
        if self.quantization:
            matrix = self.quantization.bytes_per_value(self.quantization.bits)
            if bits := self.quantization.embedding_bits:
                embedding = self.quantization.bytes_per_value(bits)
        values = self._num_matrix_values * matrix + self._num_embedding_values * embedding
        return int(values) + self._num_other_values * itemsize

    @property
    def _num_matrix_values(self) -> int:
        """Of the four matrices of each block."""
        attention = self.qkv_size * self.hidden_size
        attention += self.hidden_size * self.num_attention_heads * self.kv_channels
        mlp = 3 * self.ffn_hidden_size * self.hidden_size
        return self.num_layers * (attention + mlp)

    @property
    def _num_embedding_values(self) -> int:
        return 2 * self.padded_vocab_size * self.hidden_size

    @property
    def _num_other_values(self) -> int:
        """Norms and biases."""
        bias = self.qkv_size if self.add_qkv_bias else 0
        return self.num_layers * (2 * self.hidden_size + bias) + self.hidden_size

    @property
    def cache_values_per_token(self) -> int:
        """Values the KV cache keeps for one token (x 2 bytes in 16 bit = 28 KiB for 6B)."""
        return self.num_layers * 2 * self.num_kv_groups * self.kv_channels

    @classmethod
    def from_folder(cls, folder: Path, *, rope_mode: str = "auto") -> ModelConfig:
        """Read `config.json` of a checkpoint folder.

        Raises:
            ModelNotFoundError: no folder or no config.json in it.
            ModelError: another architecture, or an option this engine does not implement.
            ConfigError: a value is wrong, or the rotary rule cannot be told (`rope_mode`).
        """
        path = folder / "config.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            message = f"{folder} is no model folder: it has no config.json"
            raise ModelNotFoundError(message) from error
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        if not isinstance(raw, dict):
            raise CheckpointError(f"{path} does not hold a JSON object: fetch the model again")
        return cls.from_dict(raw, rope_mode=rope_mode)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, rope_mode: str = "auto") -> ModelConfig:
        """Build from the keys of a published or converted `config.json`; errors as above."""
        _refuse_unsupported(raw)
        ratio = _number(raw, "rope_ratio", 1)
        mode = _rope_mode(raw, ratio, rope_mode)
        theta = _DEFAULT_ROPE_THETA * (ratio if mode == "scale_base" else 1)
        heads = _integer(raw, "num_attention_heads")
        multi_query = bool(raw.get("multi_query_attention", False))
        pre_seq_len = raw.get("pre_seq_len")
        return cls(
            num_layers=_integer(raw, "num_layers"),
            hidden_size=_integer(raw, "hidden_size"),
            ffn_hidden_size=_integer(raw, "ffn_hidden_size"),
            kv_channels=_integer(raw, "kv_channels"),
            num_attention_heads=heads,
            num_kv_groups=_integer(raw, "multi_query_group_num", 1) if multi_query else heads,
            padded_vocab_size=_integer(raw, "padded_vocab_size"),
            seq_length=_integer(raw, "seq_length", 2048),
            layernorm_epsilon=_number(raw, "layernorm_epsilon", 1e-5),
            add_qkv_bias=bool(raw.get("add_qkv_bias", False)),
            rope_mode=mode,
            rope_ratio=ratio,
            rope_theta=_number(raw, "rope_theta", theta),
            pre_seq_len=None if pre_seq_len is None else _integer(raw, "pre_seq_len"),
            prefix_projection=bool(raw.get("prefix_projection", False)),
            quantization_bit=_integer(raw, "quantization_bit", 0),
            quantization=_quantization(raw),
            tokenizer_kind=_tokenizer_kind(raw),
            name=str(raw.get("name") or ""),
        )


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    kind = raw.get("model_type", "chatglm")
    if kind != "chatglm":
        raise ModelError(f"model_type {kind!r} is not a ChatGLM2-form model")
    for flag, supported in _SUPPORTED_FLAGS.items():
        value = raw.get(flag, supported)
        if bool(value) != supported:
            raise ModelError(f"config.json has {flag}={value}, which this engine does not run")


def _rope_mode(raw: Mapping[str, Any], ratio: float, asked: str) -> RopeMode:
    """The rule by which rope_ratio acts; the key means opposite things in two families."""
    stated = asked if asked != "auto" else str(raw.get("rope_mode") or "auto")
    if stated in ("interpolate", "scale_base"):
        return cast("RopeMode", stated)
    if stated != "auto":
        raise ConfigError(f"rope_mode must be auto, interpolate or scale_base, not {stated!r}")
    name = f"{raw.get('_name_or_path') or ''} {raw.get('name') or ''}".lower()
    interpolates = any(known in name for known in _INTERPOLATING_NAMES)
    scales_base = any(known in name for known in _BASE_SCALING_NAMES)
    if interpolates != scales_base:
        return "interpolate" if interpolates else "scale_base"
    is_32k = (raw.get("num_layers"), raw.get("padded_vocab_size"), ratio) == (28, 65024, 16)
    if ratio == 1 or (is_32k and not scales_base):
        return "interpolate"
    raise ConfigError(
        f"config.json has rope_ratio {ratio:g} but does not say how it acts: set rope_mode to "
        "interpolate (ChatGLM2) or scale_base (ChatGLM3, GLM-4)"
    )


def _tokenizer_kind(raw: Mapping[str, Any]) -> TokenizerKind:
    kind = raw.get("tokenizer_kind", "auto")
    if kind not in ("auto", "chatglm2", "chatml"):
        raise ModelError(f"config.json has tokenizer_kind {kind!r}: use chatglm2 or chatml")
    return cast("TokenizerKind", kind)


def _quantization(raw: Mapping[str, Any]) -> Quantization | None:
    stated = raw.get("quantization")
    if stated is None:
        return None
    if not isinstance(stated, Mapping):
        raise ConfigError(f"config.json: quantization must be an object, got {stated!r}")
    return Quantization(
        _integer(stated, "bits"),
        _integer(stated, "group", 32),
        _integer(stated, "embedding_bits", 8),
    )


def _number(raw: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = raw.get(key, default)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) < _LARGEST:  # JSON as Python reads it has NaN and Infinity
        raise ConfigError(f"config.json: {key} must be a number, got {value!r}")
    return float(value)


def _integer(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = _number(raw, key, default)
    if value != int(value):
        raise ConfigError(f"config.json: {key} must be a whole number, got {value!r}")
    return int(value)
