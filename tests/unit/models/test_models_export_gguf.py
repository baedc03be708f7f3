"""The GGUF file holds the model as llama.cpp wants it; where llama.cpp is installed, it agrees."""

from __future__ import annotations

import logging
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch

from glm_rag.engine.engine import Engine
from glm_rag.engine.generate import all_logits
from glm_rag.errors import GlmRagError, ModelError
from glm_rag.models.export.export import export_model
from glm_rag.models.export.gguf_model import gguf_parts
from tiny_checkpoints import TINY, random_weights, write_checkpoint

SMALL = replace(
    TINY,
    num_layers=1,
    hidden_size=64,
    ffn_hidden_size=48,
    padded_vocab_size=65024,
    name="chatglm2-tiny",
)
RULES = {
    "interpolate": {"rope_mode": "interpolate", "rope_ratio": 16.0},
    "scale_base": {"rope_mode": "scale_base", "rope_ratio": 50.0, "rope_theta": 500000.0},
    "no bias": {"add_qkv_bias": False},
}


def checkpoint(folder, test_data, **changes):
    write_checkpoint(folder, replace(SMALL, **changes))
    (folder / "tokenizer.json").unlink()
    model = (test_data / "chatglm2" / "tokenizer.model").read_bytes()
    (folder / "tokenizer.model").write_bytes(model)
    return folder


def read(path):
    """A function that gives metadata by key, and the tensors by name."""
    reader = gguf.GGUFReader(path)

    def meta(key):
        return reader.fields[key].contents() if key in reader.fields else None

    return meta, {tensor.name: tensor.data for tensor in reader.tensors}


@pytest.mark.slow  # 65,024 tokens are written and read one by one
@pytest.mark.parametrize("rule", RULES)
def test_shape_rule_and_values_are_those_of_the_checkpoint(tmp_path, test_data, rule):
    config = replace(SMALL, **RULES[rule])
    source = checkpoint(tmp_path / "source", test_data, **RULES[rule])
    report = export_model(source, tmp_path / "out", form="gguf")
    assert report.num_files == 1
    meta, tensors = read(tmp_path / "out" / "model-f32.gguf")
    assert meta("general.architecture") == "chatglm"
    assert meta("chatglm.rope.freq_base") == config.rope_theta
    assert meta("chatglm.rope.dimension_count") == config.rotary_dim
    divided = config.position_divisor != 1
    assert meta("chatglm.rope.scaling.type") == ("linear" if divided else None)
    assert meta("chatglm.rope.scaling.factor") == (16.0 if divided else None)
    weights = random_weights(config)
    fused = "transformer.encoder.layers.0.self_attention.query_key_value.weight"
    assert np.array_equal(tensors["blk.0.attn_qkv.weight"], weights[fused].numpy())
    assert ("blk.0.attn_qkv.bias" in tensors) == config.add_qkv_bias
    output = weights["transformer.output_layer.weight"].numpy()
    assert np.array_equal(tensors["output.weight"], output)


@pytest.mark.slow
def test_tokens_have_their_ids_scores_and_kinds(tmp_path, test_data):
    source = checkpoint(tmp_path / "source", test_data)
    export_model(source, tmp_path / "out", form="gguf", dtype="float16")
    meta, _ = read(tmp_path / "out" / "model-f16.gguf")
    tokens, kinds = meta("tokenizer.ggml.tokens"), meta("tokenizer.ggml.token_type")
    assert len(tokens) == len(kinds) == len(meta("tokenizer.ggml.scores")) == 65024
    assert tokens[13] == "<0x0A>"
    assert kinds[13] == 6
    assert tokens[30910] == "\u2581"
    assert {kinds[i] for i in (1, 2, 64790, 64792)} == {3}
    assert kinds[64794] == 5
    # no special token can be spelled by its published name
    assert not {"sop", "[gMASK]", "</s>", "<unk>"} & set(tokens)
    assert meta("tokenizer.ggml.eos_token_id") == 2
    assert meta("tokenizer.ggml.add_space_prefix") is True
    assert meta("tokenizer.ggml.add_bos_token") is False


def test_every_source_tensor_has_its_place_in_the_file():
    config = replace(TINY, hidden_size=64)
    shapes = {k.removeprefix("transformer."): v.shape for k, v in random_weights(config).items()}
    parts = {part.source: tuple(part.shape) for part in gguf_parts(config)}
    assert parts == {name: tuple(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("change", "words"), [({"kv_channels": 32}, "heads x kv_channels"), ({}, "tokenizer.model")]
)
def test_what_llama_cpp_has_no_form_for_is_refused(tmp_path, change, words):
    source = write_checkpoint(tmp_path / "source", replace(SMALL, padded_vocab_size=264, **change))
    with pytest.raises(GlmRagError) as caught:
        export_model(source, tmp_path / "out", form="gguf")
    assert isinstance(caught.value, ModelError)
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_llama_cpp_gives_the_engines_logits_and_ids(tmp_path, test_data, rule):
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
    source = checkpoint(tmp_path / "source", test_data, **RULES[rule])
    export_model(source, tmp_path / "out", form="gguf")
    engine = Engine.load(source, dtype="float32")
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(3, 64789, (300,), generator=generator).tolist()
    model = llama_cpp.Llama(
        str(tmp_path / "out" / "model-f32.gguf"),
        n_ctx=512,
        n_batch=512,
        logits_all=True,
        type_k=0,  # float32
        type_v=0,
        flash_attn=False,
        verbose=False,
    )
    model.eval(ids)
    difference = np.abs(model.scores[: len(ids)] - all_logits(engine.model, ids).numpy())
    assert difference.max() < 1e-3
    for text in ("你好，世界", "philosophy </s> [gMASK]", "a  b\n\n\tc", "ᚠ🙂", " " * 19):
        found = model.tokenize(text.encode(), add_bos=False, special=True)
        assert found == engine.tokenizer.encode(text)
