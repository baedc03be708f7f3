"""Tiny random ChatGLM2-form models and checkpoint folders for tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from glm_rag.engine.chatml_tokenizer import ChatMLTokenizer
from glm_rag.engine.config import ModelConfig
from glm_rag.engine.engine import Engine
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.weights import attach_tables

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TINY = ModelConfig(
    num_layers=2,
    hidden_size=32,
    ffn_hidden_size=48,
    kv_channels=16,
    num_attention_heads=4,
    num_kv_groups=2,
    padded_vocab_size=264,
    seq_length=1024,
    name="tiny",
)


def byte_tokenizer_json() -> str:
    """A tokenizer.json with one id per byte: 0..255, then the ChatML tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer.to_str()


def byte_tokenizer() -> ChatMLTokenizer:
    """Byte-level ChatML tokenizer: 256 bytes + 3 special ids, no text merges."""
    return ChatMLTokenizer(byte_tokenizer_json())


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights by published name; large enough that positions and tokens matter."""
    source = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in ChatGLM2Model(config).state_dict().items()}
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=source)
        if "layernorm" in name:
            value = 1 + 0.1 * noise
        elif name.startswith("embedding"):
            value = noise
        else:
            value = noise * (2.0 if "query_key" in name else 1.0) / shape[-1] ** 0.5
        weights[f"transformer.{name}"] = value
    return weights


def build_model(
    config: ModelConfig, weights: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32
) -> ChatGLM2Model:
    """A model in memory from published names."""
    model = ChatGLM2Model(config)
    prefix = {
        name.removeprefix("transformer.prefix_encoder."): value
        for name, value in weights.items()
        if "prefix_encoder" in name
    }
    own = {k.removeprefix("transformer."): v for k, v in weights.items() if "prefix_enc" not in k}
    model.load_state_dict(own)
    model.to(dtype)
    attach_tables(model, prefix=prefix)
    return model


def tiny_engine(*, seed: int = 0, dtype: torch.dtype = torch.float32, **shape) -> Engine:
    """An engine with random weights and the byte tokenizer; `shape` overrides `TINY`."""
    config = replace(TINY, **shape)
    model = build_model(config, random_weights(config, seed), dtype)
    return Engine(config, model, byte_tokenizer())


def config_json(config: ModelConfig) -> dict:
    """The keys of a converted checkpoint's config.json."""
    return {
        "model_type": "chatglm",
        "num_layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "ffn_hidden_size": config.ffn_hidden_size,
        "kv_channels": config.kv_channels,
        "num_attention_heads": config.num_attention_heads,
        "multi_query_attention": True,
        "multi_query_group_num": config.num_kv_groups,
        "padded_vocab_size": config.padded_vocab_size,
        "seq_length": config.seq_length,
        "layernorm_epsilon": config.layernorm_epsilon,
        "add_qkv_bias": config.add_qkv_bias,
        "rmsnorm": True,
        "original_rope": True,
        "rope_ratio": config.rope_ratio,
        "rope_theta": config.rope_theta,
        "rope_mode": config.rope_mode,
        "name": config.name,
    }


def write_checkpoint(
    folder: Path,
    config: ModelConfig = TINY,
    *,
    weights: dict[str, torch.Tensor] | None = None,
    layout: str = "safetensors",
    num_shards: int = 3,
) -> Path:
    """Write config.json, weights and tokenizer.json; layout safetensors, bin, or sharded-*."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = random_weights(config) if weights is None else weights
    (folder / "config.json").write_text(json.dumps(config_json(config)))
    (folder / "tokenizer.json").write_text(byte_tokenizer_json(), encoding="utf-8")
    kind = layout.removeprefix("sharded-")
    stem, suffix = {"safetensors": ("model", ".safetensors"), "bin": ("pytorch_model", ".bin")}[
        kind
    ]
    if kind == layout:
        save_tensors(folder / f"{stem}{suffix}", weights)
        return folder
    names = list(weights)
    weight_map = {}
    for number in range(num_shards):
        file = f"{stem}-{number + 1:05d}-of-{num_shards:05d}{suffix}"
        part = {name: weights[name] for name in names[number::num_shards]}
        save_tensors(folder / file, part)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index))
    return folder


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write one weight file, format by suffix."""
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    else:
        torch.save(tensors, path)
