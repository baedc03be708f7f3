"""config.json is read as the specification says, and nothing about rotation is guessed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from golden_values import GOLDEN

from glm_rag.engine.config import ModelConfig
from glm_rag.errors import CheckpointError, ConfigError, ModelError, ModelNotFoundError

PUBLISHED_32K = {
    "_name_or_path": "THUDM/chatglm2-6b-32k",
    "model_type": "chatglm",
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_residual_connection_post_layernorm": False,
    "eos_token_id": 2,
    "ffn_hidden_size": 13696,
    "fp32_residual_connection": False,
    "hidden_size": 4096,
    "kv_channels": 128,
    "layernorm_epsilon": 1e-05,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 32,
    "num_layers": 28,
    "original_rope": True,
    "padded_vocab_size": 65024,
    "post_layer_norm": True,
    "rmsnorm": True,
    "rope_ratio": 16,
    "seq_length": 32768,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}


def config(**changes) -> ModelConfig:
    return ModelConfig.from_dict(PUBLISHED_32K | changes)


def test_published_32k_config_interpolates_positions():
    c = config()
    assert (c.rope_mode, c.position_divisor, c.rope_theta) == ("interpolate", 16, 10000)
    assert (c.num_kv_groups, c.rotary_dim, c.qkv_size) == (2, 64, 4608)
    assert c.quantization_bit == 0


def test_sizes_are_the_published_ones():
    inv_freq_values = 32
    assert (config().num_parameters + inv_freq_values) * 2 == GOLDEN["checkpoint_32k"]["total_size"]
    assert config().cache_values_per_token * 2 == 28 * 1024


def test_chatglm3_32k_scales_the_base():
    c = config(_name_or_path="THUDM/chatglm3-6b-32k", rope_ratio=50)
    assert (c.rope_mode, c.position_divisor, c.rope_theta) == ("scale_base", 1, 500000)


@pytest.mark.parametrize("name", ["", "/models/my-finetune", "chatglm2 distilled into chatglm3"])
def test_an_unknown_ratio_without_a_known_name_is_refused(name):
    with pytest.raises(ConfigError, match="rope_mode"):
        config(_name_or_path=name, rope_ratio=50)


def test_the_32k_shape_is_known_without_a_name():
    assert config(_name_or_path="").rope_mode == "interpolate"
    with pytest.raises(ConfigError, match="rope_mode"):
        config(_name_or_path="", num_layers=40)


def test_ratio_one_needs_no_rule():
    assert config(_name_or_path="", rope_ratio=1).position_divisor == 1
    without = {k: v for k, v in PUBLISHED_32K.items() if k != "rope_ratio"}
    assert ModelConfig.from_dict(without | {"_name_or_path": "x"}).rope_theta == 10000


def test_explicit_keys_win_over_the_name():
    assert config(rope_mode="scale_base").rope_theta == 160000
    assert config(rope_mode="scale_base", rope_theta=1e5).rope_theta == 1e5
    assert config(rope_ratio=1, rope_theta=1e5).rope_theta == 1e5
    asked = ModelConfig.from_dict(
        PUBLISHED_32K | {"rope_mode": "scale_base"}, rope_mode="interpolate"
    )
    assert asked.position_divisor == 16


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rmsnorm", False),
        ("original_rope", False),
        ("add_bias_linear", True),
        ("apply_residual_connection_post_layernorm", True),
        ("post_layer_norm", False),
        ("fp32_residual_connection", True),
        ("tie_word_embeddings", True),
        ("model_type", "llama"),
    ],
)
def test_what_the_engine_does_not_run_is_refused_by_name(key, value):
    with pytest.raises(ModelError, match=key):
        config(**{key: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": 0},
        {"hidden_size": "big"},
        {"multi_query_group_num": 5},
        {"kv_channels": 30},
        {"rope_mode": "yarn"},
        {"rope_ratio": -1, "rope_mode": "interpolate"},
        {"num_layers": 1.5},
        {"seq_length": True},
        {"num_layers": float("nan")},
        {"num_layers": float("inf")},
        {"hidden_size": 10**400},
    ],
)
def test_wrong_values_are_config_errors(changes):
    with pytest.raises(ConfigError):
        config(**changes)


def test_absent_keys_take_the_published_defaults():
    raw = {
        k: v for k, v in PUBLISHED_32K.items() if k not in ("multi_query_attention", "seq_length")
    }
    c = ModelConfig.from_dict(raw)
    assert c.num_kv_groups == c.num_attention_heads
    assert c.seq_length == 2048


def test_a_missing_required_key_is_named():
    raw = {k: v for k, v in PUBLISHED_32K.items() if k != "ffn_hidden_size"}
    with pytest.raises(ConfigError, match="ffn_hidden_size"):
        ModelConfig.from_dict(raw)


def test_folders_without_a_readable_config_are_refused(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        ModelConfig.from_folder(tmp_path)
    for content in (b"{", b"[]", b"\xff\xff"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            ModelConfig.from_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED_32K))
    assert ModelConfig.from_folder(tmp_path) == config()


def test_config_is_read_without_torch():
    code = "import sys, glm_rag.engine.config as c; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
