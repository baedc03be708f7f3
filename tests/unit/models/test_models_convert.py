"""A converted GGUF computes what the Llama it came from computes."""

from __future__ import annotations

import json

import pytest
import torch
from llama_reference import random_llama, write_gguf
from safetensors.torch import load_file

from glm_rag.engine.engine import Engine
from glm_rag.engine.tokenizer import load_tokenizer
from glm_rag.errors import CheckpointError
from glm_rag.models.convert import convert_gguf

SHAPES = {
    "grouped queries, tied output": {},
    "output matrix of its own": {"tied": False, "seed": 1},
    "a key head per query head": {"heads": 2, "kv_heads": 2, "head_dim": 16, "seed": 2},
    "one key head, another base": {"hidden": 24, "heads": 3, "kv_heads": 1, "base": 1e5, "seed": 3},
    "heads wider than the stream": {"hidden": 16, "heads": 4, "head_dim": 12, "seed": 4},
    "deep": {"layers": 5, "seed": 5},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_of_the_converted_model_equal_the_llamas(shape, tmp_path):
    llama = random_llama(**shape)
    folder = convert_gguf(write_gguf(llama, tmp_path / "m.gguf"), tmp_path / "m", name="tiny")
    ids = torch.randint(0, llama.config.vocab_size, (100,), generator=torch.manual_seed(9)).tolist()
    with torch.inference_mode():
        expected = llama(torch.tensor([ids])).logits[0]
    ours = Engine.load(folder, dtype="float32").logits(ids)
    assert (ours - expected).abs().max() < 1e-4


def test_the_widened_half_of_every_head_is_zero(tiny_gguf, tmp_path):
    folder = convert_gguf(tiny_gguf, tmp_path / "m", name="tiny")
    weights = load_file(folder / "model.safetensors")
    fused = weights["transformer.encoder.layers.0.self_attention.query_key_value.weight"]
    heads = fused.view(-1, 16, 32)  # [H + 2 G, 2 d, hidden]
    assert heads[:, :8].any(dim=-1).all()
    assert not heads[:, 8:].any()


def test_config_states_its_rotary_rule_and_tokenizer_explicitly(tiny_gguf, tmp_path):
    folder = convert_gguf(tiny_gguf, tmp_path / "m", name="tiny")
    config = json.loads((folder / "config.json").read_text())
    assert config["kv_channels"] == 2 * 8
    assert (config["rope_mode"], config["rope_ratio"], config["rope_theta"]) == (
        "scale_base",
        1,
        10000.0,
    )
    assert (config["name"], config["tokenizer_kind"]) == ("tiny", "chatml")
    assert config["eos_token_id"] == [2, 0]
    assert config["layernorm_epsilon"] == 1e-5


def test_tokenizer_splits_digits_and_merges_and_returns_any_text(tiny_gguf, tmp_path):
    tokenizer = load_tokenizer(convert_gguf(tiny_gguf, tmp_path / "m", name="tiny"), "chatml")
    assert len(tokenizer.encode("2024")) == 4
    assert len(tokenizer.encode("he")) == 1
    text = "he said: 育儿假 42 days 🎈\n\ttab"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_token_ids == {0, 2}


def test_special_tokens_in_the_users_text_stay_text(tiny_gguf, tmp_path):
    tokenizer = load_tokenizer(convert_gguf(tiny_gguf, tmp_path / "m", name="tiny"), "chatml")
    ids = tokenizer.encode("<|im_end|><|endoftext|>")
    assert not {0, 1, 2} & set(ids)


def test_a_missing_tensor_is_named(tmp_path):
    gguf = write_gguf(random_llama(), tmp_path / "m.gguf", leave_out={"blk.1.ffn_up.weight"})
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_up\.weight"):
        convert_gguf(gguf, tmp_path / "m", name="tiny")
    assert not (tmp_path / "m").exists()


def test_a_model_without_exact_form_is_refused(tmp_path):
    gguf = write_gguf(random_llama(), tmp_path / "m.gguf", architecture="qwen2")
    with pytest.raises(CheckpointError, match="only llama converts"):
        convert_gguf(gguf, tmp_path / "m", name="tiny")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 10])
def test_a_damaged_file_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"m\.gguf"):
        convert_gguf(tmp_path / "m.gguf", tmp_path / "m", name="tiny")


def test_a_truncated_file_is_refused(tiny_gguf, tmp_path):
    whole = tiny_gguf.read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(CheckpointError, match=r"m\.gguf"):
        convert_gguf(tmp_path / "m.gguf", tmp_path / "m", name="tiny")
