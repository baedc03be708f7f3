"""Re-express a Llama-architecture GGUF exactly as a ChatGLM2 checkpoint folder.

ChatGLM2 rotates the first half of each head only and divides scores by sqrt(kv_channels); Llama
rotates whole heads of size d. So heads become twice as wide: the first d dimensions carry the
Llama head, the others are zero, and queries are scaled by sqrt(2) to make up for
sqrt(2 d) instead of sqrt(d). GGUF already stores query and key rows as adjacent rotary pairs,
which is ChatGLM2's order too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glm_rag.errors import CheckpointError, MissingDependencyError, ModelError
from glm_rag.models.gguf_file import Array, GgufFile
from glm_rag.models.storage import OnProgress, no_progress

_CONTROL_TOKEN = 3  # GGUF token type of special tokens
_PRE_TOKENIZERS = {"smollm"}  # single digits, then GPT-2's byte-level pattern
_END_TOKENS = ("<|im_end|>", "<|endoftext|>")
_BLOCK_TENSORS = frozenset(
    {"attn_q", "attn_k", "attn_v", "attn_output", "attn_norm"}
    | {"ffn_gate", "ffn_up", "ffn_down", "ffn_norm"}
)


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """What a Llama GGUF says about its architecture; sizes in elements."""

    num_layers: int
    hidden_size: int
    ffn_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    norm_eps: float
    rope_base: float


def convert_gguf(
    gguf: Path, folder: Path, *, name: str, on_progress: OnProgress = no_progress
) -> Path:
    """Write the model in `gguf` as a checkpoint folder for the ChatGLM2 engine.

    The folder gets config.json, model.safetensors (float32) and tokenizer.json. float32 because
    rounding Q4_1 weights to 16 bits moves the logits by more than the 2e-3 within which they
    equal the original's.

    Args:
        folder: created; must not hold a model yet.
        name: kept in config.json.

    Raises:
        CheckpointError: damaged, not a Llama, or with a feature that has no exact form here.
        MissingDependencyError: gguf, safetensors or tokenizers is not installed.
    """
    save_file, safetensors_error, tokenizers = _libraries()
    source = GgufFile.open(gguf)
    shape = _shape(source)
    _refuse_inexact(source, shape)
    tokenizer = _tokenizer(source, tokenizers)
    weights: dict[str, Array] = dict(_outer(source))
    for layer in range(shape.num_layers):
        on_progress("converting", layer, shape.num_layers)
        weights.update(_block(source, layer, shape))
    config = chatglm2_config(shape, name=name, eos_token_id=_end_ids(source))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    try:
        save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    except safetensors_error as error:
        raise ModelError(f"cannot write the converted weights to {folder}: {error}") from error
    config_path = folder / "config.json"
    config_path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # safetensors writes for the owner only; give the weights the rights of any other file
    (folder / "model.safetensors").chmod(config_path.stat().st_mode)
    on_progress("converting", shape.num_layers, shape.num_layers)
    return folder


def chatglm2_config(shape: LlamaShape, *, name: str, eos_token_id: list[int]) -> dict[str, Any]:
    """The config.json of the converted model: ChatGLM2's keys plus explicit extra ones."""
    return {
        "name": name,
        "model_type": "chatglm",
        "tokenizer_kind": "chatml",
        "num_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "ffn_hidden_size": shape.ffn_size,
        "kv_channels": 2 * shape.head_dim,
        "num_attention_heads": shape.num_heads,
        "multi_query_attention": True,
        "multi_query_group_num": shape.num_kv_heads,
        "padded_vocab_size": shape.vocab_size,
        "seq_length": shape.context_length,
        "layernorm_epsilon": shape.norm_eps,
        "rmsnorm": True,
        "post_layer_norm": True,
        "apply_residual_connection_post_layernorm": False,
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "tie_word_embeddings": False,
        "rope_mode": "scale_base",
        "rope_ratio": 1,
        "rope_theta": shape.rope_base,
        "eos_token_id": eos_token_id,
        "torch_dtype": "float32",
    }


def _libraries() -> tuple[Any, Any, Any]:
    try:
        import tokenizers
        from safetensors import SafetensorError
        from safetensors.numpy import save_file
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "safetensors", "engine") from error
    return save_file, SafetensorError, tokenizers


def _shape(gguf: GgufFile) -> LlamaShape:
    architecture = gguf.meta.get("general.architecture")
    if architecture != "llama":
        raise CheckpointError(f"{gguf.path} is of kind {architecture!r}; only llama converts")
    hidden = gguf.key("llama.embedding_length")
    heads = gguf.key("llama.attention.head_count")
    return LlamaShape(
        num_layers=gguf.key("llama.block_count"),
        hidden_size=hidden,
        ffn_size=gguf.key("llama.feed_forward_length"),
        num_heads=heads,
        num_kv_heads=gguf.meta.get("llama.attention.head_count_kv", heads),
        head_dim=gguf.meta.get("llama.attention.key_length", hidden // heads),
        vocab_size=len(gguf.key("tokenizer.ggml.tokens")),
        context_length=gguf.key("llama.context_length"),
        # stored as float32: 9.99999974e-06 was 1e-05
        norm_eps=float(f"{gguf.key('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        rope_base=gguf.meta.get("llama.rope.freq_base", 10000.0),
    )


def _refuse_inexact(gguf: GgufFile, shape: LlamaShape) -> None:
    """Refuse what has no exact ChatGLM2 form rather than convert it almost right."""
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if gguf.meta.get(key, shape.head_dim) != shape.head_dim:
            raise CheckpointError(f"{gguf.path}: {key} differs from the head size: no exact form")
    if gguf.meta.get("llama.rope.scaling.type", "none") != "none":
        raise CheckpointError(f"{gguf.path}: scaled rotary positions have no exact form here")
    known = {"token_embd.weight", "output_norm.weight", "output.weight"}
    known |= {f"blk.{i}.{part}.weight" for i in range(shape.num_layers) for part in _BLOCK_TENSORS}
    unknown = sorted(set(gguf.tensors) - known)
    if unknown:
        raise CheckpointError(f"{gguf.path}: the tensor {unknown[0]} has no exact form here")


def _outer(gguf: GgufFile) -> Iterator[tuple[str, Array]]:
    embedding = gguf["token_embd"]
    yield "transformer.embedding.word_embeddings.weight", embedding
    yield "transformer.encoder.final_layernorm.weight", gguf["output_norm"]
    # ChatGLM2 keeps the output matrix apart; a tied embedding is stored twice.
    output = gguf["output"] if "output.weight" in gguf.tensors else embedding.copy()
    yield "transformer.output_layer.weight", output


def _block(gguf: GgufFile, layer: int, shape: LlamaShape) -> Iterator[tuple[str, Array]]:
    source, target = f"blk.{layer}.", f"transformer.encoder.layers.{layer}."
    queries = _widen_rows(gguf[source + "attn_q"], shape.num_heads, scale=math.sqrt(2.0))
    keys = _widen_rows(gguf[source + "attn_k"], shape.num_kv_heads)
    values = _widen_rows(gguf[source + "attn_v"], shape.num_kv_heads)
    fused = np.concatenate([queries, keys, values])  # [(H + 2 G) 2d, hidden]
    yield target + "self_attention.query_key_value.weight", fused
    yield target + "self_attention.query_key_value.bias", np.zeros(len(fused), np.float32)
    dense = _widen_columns(gguf[source + "attn_output"], shape.num_heads)
    yield target + "self_attention.dense.weight", dense
    gate_up = np.concatenate([gguf[source + "ffn_gate"], gguf[source + "ffn_up"]])
    yield target + "mlp.dense_h_to_4h.weight", gate_up
    yield target + "mlp.dense_4h_to_h.weight", gguf[source + "ffn_down"]
    yield target + "input_layernorm.weight", gguf[source + "attn_norm"]
    yield target + "post_attention_layernorm.weight", gguf[source + "ffn_norm"]


def _widen_rows(weight: Array, num_heads: int, scale: float = 1.0) -> Array:
    """[n d, hidden] -> [n 2d, hidden]: each head followed by as many zero rows."""
    hidden = weight.shape[1]
    heads = weight.reshape(num_heads, -1, hidden)  # [n, d, hidden]
    scaled = (heads.astype(np.float64) * scale).astype(np.float32)
    wide = np.concatenate([scaled, np.zeros_like(scaled)], axis=1)  # [n, 2d, hidden]
    return wide.reshape(-1, hidden)


def _widen_columns(weight: Array, num_heads: int) -> Array:
    """[hidden, n d] -> [hidden, n 2d]: the zero half of each head reaches nothing."""
    hidden = weight.shape[0]
    heads = weight.reshape(hidden, num_heads, -1)  # [hidden, n, d]
    return np.concatenate([heads, np.zeros_like(heads)], axis=2).reshape(hidden, -1)


def _end_ids(gguf: GgufFile) -> list[int]:
    """Ids that end an answer: the declared one and the end-of-turn and end-of-text tokens."""
    tokens = gguf.key("tokenizer.ggml.tokens")
    named = [tokens.index(token) for token in _END_TOKENS if token in tokens]
    return list(dict.fromkeys([gguf.key("tokenizer.ggml.eos_token_id"), *named]))


def _tokenizer(gguf: GgufFile, tokenizers: Any) -> Any:
    """Byte-level BPE with single digits, from the GGUF's own tokens and merges."""
    kind, pre = gguf.meta.get("tokenizer.ggml.model"), gguf.meta.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        raise CheckpointError(
            f"{gguf.path} has a tokenizer of kind {kind}/{pre}, which is not known"
        )
    tokens = gguf.key("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in gguf.key("tokenizer.ggml.merges")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    pre_tokenizers = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    types = gguf.key("tokenizer.ggml.token_type")
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(token, special=True, normalized=False) for token in special]
    )
    return tokenizer
