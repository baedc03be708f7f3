"""Tiny random Llama models, as transformers runs them and as a GGUF file holds them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_CONTROL, _NORMAL = 3, 1
# GGUF name of a block's tensor and transformers' name of it
_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def byte_tokens() -> list[str]:
    """A vocabulary of three special tokens, the 256 byte characters and two merges."""
    return [*SPECIAL_TOKENS, *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), "he", "20"]


def random_llama(
    *, layers=2, hidden=32, ffn=48, heads=4, kv_heads=2, head_dim=8, base=10000.0, tied=True, seed=0
) -> LlamaForCausalLM:
    """A Llama with random weights in evaluation mode."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(byte_tokens()),
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": base},
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    return model


def rotate_half_to_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Row order of transformers -> row order of a GGUF: (i, i + d/2) become neighbours."""
    rows, columns = weight.shape
    split = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(rows, columns)


def pairs_to_rotate_half(weight: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `rotate_half_to_pairs`."""
    rows, columns = weight.shape
    split = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(rows, columns)


def write_gguf(model: LlamaForCausalLM, path: Path, *, architecture="llama", leave_out=()) -> Path:
    """Write the model as a float32 GGUF with a byte-level tokenizer."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    tokens = byte_tokens()
    types = [_CONTROL if token in SPECIAL_TOKENS else _NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["h e", "2 0"])
    writer.add_eos_token_id(2)
    for name, tensor in _gguf_tensors(model).items():
        if name not in leave_out:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_tensors(model: LlamaForCausalLM) -> dict[str, np.ndarray]:
    config = model.config
    state = {name: weight.numpy() for name, weight in model.state_dict().items()}
    tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    if not config.tie_word_embeddings:
        tensors["output.weight"] = state["lm_head.weight"]
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for ours, theirs in _BLOCK.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            if ours in heads:
                weight = rotate_half_to_pairs(weight, heads[ours])
            tensors[f"blk.{layer}.{ours}.weight"] = weight
    return tensors


def llama_from_gguf(path: Path) -> LlamaForCausalLM:
    """transformers' own Llama with the weights of a GGUF, in float32."""
    reader = gguf.GGUFReader(path)
    meta = {name.removeprefix("llama."): item.contents() for name, item in reader.fields.items()}
    get = SimpleNamespace(heads=meta["attention.head_count"], kv=meta["attention.head_count_kv"])
    config = LlamaConfig(
        vocab_size=meta["vocab_size"],
        hidden_size=meta["embedding_length"],
        intermediate_size=meta["feed_forward_length"],
        num_hidden_layers=meta["block_count"],
        num_attention_heads=get.heads,
        num_key_value_heads=get.kv,
        max_position_embeddings=meta["context_length"],
        rms_norm_eps=meta["attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": meta["rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    weights = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    state = {
        "model.embed_tokens.weight": weights["token_embd.weight"],
        "model.norm.weight": weights["output_norm.weight"],
        "lm_head.weight": weights["token_embd.weight"],
    }
    for layer in range(config.num_hidden_layers):
        for ours, theirs in _BLOCK.items():
            weight = weights[f"blk.{layer}.{ours}.weight"]
            if ours in ("attn_q", "attn_k"):
                weight = pairs_to_rotate_half(weight, get.heads if ours == "attn_q" else get.kv)
            state[f"model.layers.{layer}.{theirs}.weight"] = weight
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    model.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in state.items()})
    # to_empty left the rotary frequencies, a buffer that no state dict holds, uninitialised
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()
