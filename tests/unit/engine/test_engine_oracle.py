"""Random models of many shapes agree with an independent implementation of the architecture."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.generate import all_logits
from tiny_checkpoints import TINY, build_model, random_weights

SHAPES = {
    "plain": {},
    "heads x channels above hidden size": {"hidden_size": 48, "kv_channels": 32},
    "heads x channels below hidden size": {"hidden_size": 96, "kv_channels": 8},
    "one group": {"num_kv_groups": 1, "num_attention_heads": 6},
    "group per head": {"num_kv_groups": 4},
    "no qkv bias": {"add_qkv_bias": False},
    "deep, 32 heads": {"num_layers": 5, "num_attention_heads": 32, "hidden_size": 64},
    "wide mlp, odd vocabulary": {"ffn_hidden_size": 133, "padded_vocab_size": 271},
}
RULES = {
    "interpolate": {"rope_mode": "interpolate", "rope_ratio": 16.0},
    "scale_base": {"rope_mode": "scale_base", "rope_ratio": 50.0, "rope_theta": 500000.0},
}
IDS = torch.randint(0, 260, (90,), generator=torch.Generator().manual_seed(1)).tolist()


def reference_logits(config: ModelConfig, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of transformers' GlmForCausalLM with the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns on import about its own plans
        from transformers import GlmConfig, GlmForCausalLM

        model = GlmForCausalLM(GlmConfig(**_glm_config(config)))
    model.load_state_dict(_glm_weights(config, weights))
    with torch.inference_mode():
        return model.eval()(torch.tensor([IDS])).logits[0]


def _glm_config(c: ModelConfig) -> dict:
    linear = c.position_divisor != 1
    rope = {"rope_type": "linear", "factor": c.position_divisor} if linear else {}
    return {
        "vocab_size": c.padded_vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.ffn_hidden_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_kv_groups,
        "head_dim": c.kv_channels,
        "hidden_act": "silu",
        "max_position_embeddings": c.seq_length,
        "rms_norm_eps": c.layernorm_epsilon,
        "tie_word_embeddings": False,
        "attention_bias": c.add_qkv_bias,
        "attention_dropout": 0.0,
        "pad_token_id": None,
        "eos_token_id": 2,
        "bos_token_id": None,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": c.rope_theta,
            "partial_rotary_factor": 0.5,
            **rope,
        },
    }


def _glm_weights(c: ModelConfig, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    fixed = {
        "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
        "transformer.encoder.final_layernorm.weight": "model.norm.weight",
        "transformer.output_layer.weight": "lm_head.weight",
    }
    renamed = (
        ("transformer.encoder.layers", "model.layers"),
        ("self_attention.dense", "self_attn.o_proj"),
        ("mlp.dense_h_to_4h", "mlp.gate_up_proj"),
        ("mlp.dense_4h_to_h", "mlp.down_proj"),
    )
    sizes = [n * c.kv_channels for n in (c.num_attention_heads, c.num_kv_groups, c.num_kv_groups)]
    result = {}
    for name, value in weights.items():
        new = fixed.get(name, name)
        for old_part, new_part in renamed:
            new = new.replace(old_part, new_part)
        if "query_key_value" not in name:
            result[new] = value
            continue
        for letter, part in zip("qkv", value.split(sizes), strict=True):
            result[new.replace("self_attention.query_key_value", f"self_attn.{letter}_proj")] = part
    return result


def worst_difference(config: ModelConfig, reference: ModelConfig) -> float:
    weights = random_weights(config, seed=3)
    ours = all_logits(build_model(config, weights), IDS, chunk=64)
    return float((ours - reference_logits(reference, weights)).abs().max())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_agree_with_the_reference(shape, rule):
    config = replace(TINY, **SHAPES[shape], **RULES[rule])
    assert worst_difference(config, config) < 1e-4


def test_the_wrong_rotary_rule_is_far_off():
    right = replace(TINY, rope_mode="interpolate", rope_ratio=16.0)
    wrong = replace(TINY, rope_mode="scale_base", rope_ratio=16.0, rope_theta=160000.0)
    assert worst_difference(right, wrong) > 0.1
    assert worst_difference(wrong, right) > 0.1


def test_bfloat16_stays_close_to_float32():
    weights = random_weights(TINY)
    exact = all_logits(build_model(TINY, weights), IDS)
    rounded = all_logits(build_model(TINY, weights, torch.bfloat16), IDS)
    assert rounded.dtype == torch.float32
    relative = (rounded - exact).norm() / exact.norm()
    assert relative < 0.05
    assert (rounded.argmax(-1) == exact.argmax(-1)).float().mean() > 0.8
