"""Which rows of which ChatGLM2 tensor become which tensor of `GlmForCausalLM`."""

from __future__ import annotations

from collections.abc import Iterator

from glm_rag.engine.config import ModelConfig
from glm_rag.models.export.parts import Part


def glm_parts(config: ModelConfig) -> Iterator[Part]:
    """All tensors of the export, in the order of the network."""
    hidden, vocabulary = config.hidden_size, config.padded_vocab_size
    yield Part(
        "model.embed_tokens.weight", "embedding.word_embeddings.weight", 0, vocabulary, hidden
    )
    for layer in range(config.num_layers):
        yield from _block(config, layer)
    yield Part("model.norm.weight", "encoder.final_layernorm.weight", 0, hidden)
    yield Part("lm_head.weight", "output_layer.weight", 0, vocabulary, hidden)


def _block(config: ModelConfig, layer: int) -> Iterator[Part]:
    source, target = f"encoder.layers.{layer}.", f"model.layers.{layer}."
    hidden, ffn = config.hidden_size, config.ffn_hidden_size
    attended = config.num_attention_heads * config.kv_channels
    fused = source + "self_attention.query_key_value."
    start = 0
    for letter, heads in (
        ("q", config.num_attention_heads),
        ("k", config.num_kv_groups),
        ("v", config.num_kv_groups),
    ):
        stop = start + heads * config.kv_channels
        name = f"{target}self_attn.{letter}_proj."
        yield Part(name + "weight", fused + "weight", start, stop, hidden)
        if config.add_qkv_bias:
            yield Part(name + "bias", fused + "bias", start, stop)
        start = stop
    matrices = (
        ("self_attn.o_proj", "self_attention.dense", hidden, attended),
        ("mlp.gate_up_proj", "mlp.dense_h_to_4h", 2 * ffn, hidden),
        ("mlp.down_proj", "mlp.dense_4h_to_h", hidden, ffn),
    )
    for new, old, rows, columns in matrices:
        yield Part(f"{target}{new}.weight", f"{source}{old}.weight", 0, rows, columns)
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield Part(f"{target}{norm}.weight", f"{source}{norm}.weight", 0, hidden)
