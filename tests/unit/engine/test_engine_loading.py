"""Checkpoint folders load in every layout; broken ones are refused with the culprit's name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_values import GOLDEN, INPUT_IDS, RESULTS, golden_config, golden_weights

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.engine import Engine
from glm_rag.engine.generate import all_logits
from glm_rag.errors import CheckpointError, ConfigError, ModelNotFoundError
from tiny_checkpoints import (
    TINY,
    build_model,
    byte_tokenizer_json,
    random_weights,
    save_tensors,
    write_checkpoint,
)

MAPS = Path("/proc/self/maps")
LAYOUTS = ["safetensors", "bin", "sharded-safetensors", "sharded-bin"]
QKV = "transformer.encoder.layers.1.self_attention.query_key_value.weight"
IDS = list(range(20))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_model(tmp_path, layout):
    engine = Engine.load(write_checkpoint(tmp_path, layout=layout))
    expected = all_logits(build_model(TINY, random_weights(TINY)), IDS)
    torch.testing.assert_close(engine.logits(IDS), expected)
    assert (engine.name, engine.context_window) == (TINY.name, TINY.seq_length)


def test_precision_is_cast_on_load(tmp_path):
    weights = {k: v.half() for k, v in random_weights(TINY).items()}
    folder = write_checkpoint(tmp_path, weights=weights, layout="sharded-bin")
    assert Engine.load(folder).dtype == torch.float32
    engine = Engine.load(folder, dtype="bfloat16")
    assert {p.dtype for p in engine.model.parameters()} == {torch.bfloat16}


@pytest.mark.skipif(not MAPS.exists(), reason="needs /proc")
@pytest.mark.parametrize(("dtype", "is_mapped"), [("float32", True), ("bfloat16", False)])
def test_weights_without_a_cast_stay_mapped_from_the_file(tmp_path, dtype, is_mapped):
    file = write_checkpoint(tmp_path, layout="bin") / "pytorch_model.bin"
    engine = Engine.load(tmp_path, dtype=dtype)
    assert (str(file) in MAPS.read_text()) == is_mapped
    assert engine.model.dtype == getattr(torch, dtype)


def test_inv_freq_is_ignored(tmp_path):
    weights = random_weights(TINY) | {"transformer.rotary_pos_emb.inv_freq": torch.zeros(3)}
    Engine.load(write_checkpoint(tmp_path, weights=weights))


def test_published_tensor_map_is_what_the_loader_expects():
    raw = {
        "num_layers": 28,
        "hidden_size": 4096,
        "ffn_hidden_size": 13696,
        "kv_channels": 128,
        "num_attention_heads": 32,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "padded_vocab_size": 65024,
        "add_qkv_bias": True,
        "rope_ratio": 16,
    }
    from glm_rag.engine.model import ChatGLM2Model

    config = ModelConfig.from_dict(raw)
    with torch.device("meta"):
        model = ChatGLM2Model(config)
    names = {f"transformer.{name}" for name in model.state_dict()}
    published = set(GOLDEN["checkpoint_32k"]["tensor_to_shard_number_of_7"])
    assert published - names == {"transformer.rotary_pos_emb.inv_freq"}
    assert names <= published
    assert sum(v.numel() for v in model.state_dict().values()) == config.num_parameters


def broken(folder, change) -> str:
    """Write a checkpoint with changed tensors; the message of the refusal."""
    weights = random_weights(TINY)
    change(weights)
    write_checkpoint(folder, weights=weights, layout="sharded-bin")
    with pytest.raises(CheckpointError) as caught:
        Engine.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_tensor_is_named(tmp_path):
    assert QKV in broken(tmp_path, lambda weights: weights.pop(QKV))


def test_many_missing_tensors_are_counted(tmp_path):
    message = broken(tmp_path, lambda w: [w.pop(k) for k in list(w) if "layers.1." in k])
    assert "4 more" in message


def test_extra_tensor_is_named(tmp_path):
    extra = "transformer.encoder.layers.2.mlp.dense_4h_to_h.weight"
    assert extra in broken(tmp_path, lambda w: w.update({extra: torch.zeros(2)}))


def test_prefix_weights_without_a_configured_prefix_are_extra(tmp_path):
    extra = "transformer.prefix_encoder.embedding.weight"
    assert extra in broken(tmp_path, lambda w: w.update({extra: torch.zeros(4, 128)}))


def test_misshapen_tensor_is_named_with_both_shapes(tmp_path):
    message = broken(tmp_path, lambda w: w.update({QKV: w[QKV][1:]}))
    assert QKV in message
    assert str(list(random_weights(TINY)[QKV].shape)) in message


def test_integer_tensor_is_refused(tmp_path):
    assert "int8" in broken(tmp_path, lambda w: w.update({QKV: w[QKV].to(torch.int8)}))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("keep", [0, 0.5, 0.999])
def test_truncated_shard_is_named(tmp_path, layout, keep):
    write_checkpoint(tmp_path, layout=layout)
    shard = sorted([*tmp_path.glob("*.bin"), *tmp_path.glob("*.safetensors")])[-1]
    content = shard.read_bytes()
    shard.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(CheckpointError, match=shard.name):
        Engine.load(tmp_path)


@pytest.mark.parametrize("layout", ["sharded-bin", "sharded-safetensors"])
def test_missing_shard_is_named(tmp_path, layout):
    write_checkpoint(tmp_path, layout=layout)
    shard = sorted([*tmp_path.glob("*.bin"), *tmp_path.glob("*.safetensors")])[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"misses 1 of .*{shard.name}"):
        Engine.load(tmp_path)


def test_the_complete_kind_is_taken_where_another_is_not(tmp_path):
    write_checkpoint(tmp_path, layout="sharded-safetensors")
    write_checkpoint(tmp_path, layout="sharded-bin")
    next(tmp_path.glob("*.safetensors")).unlink()
    assert len(Engine.load(tmp_path).logits(IDS)) == len(IDS)


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/passwd", "a/../../b", "..", "", 3])
def test_an_index_cannot_name_files_outside_its_folder(tmp_path, name):
    folder = write_checkpoint(tmp_path / "model", layout="sharded-bin")
    save_tensors(tmp_path / "outside.bin", random_weights(TINY))
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {QKV: name}}))
    with pytest.raises(CheckpointError, match="no weight file of its folder"):
        Engine.load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}'])
def test_damaged_index_is_named(tmp_path, content):
    write_checkpoint(tmp_path, layout="sharded-bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        Engine.load(tmp_path)


class _Evil:
    """Would create a file when unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickled_code_is_never_run(tmp_path):
    write_checkpoint(tmp_path / "model", layout="bin")
    trap = tmp_path / "trap"
    torch.save({"x": _Evil(trap)}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        Engine.load(tmp_path / "model")
    assert not trap.exists()


@pytest.mark.parametrize("content", [[1, 2], {"x": 3}])
def test_files_that_hold_no_tensors_are_refused(tmp_path, content):
    write_checkpoint(tmp_path, layout="bin")
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        Engine.load(tmp_path)


def test_files_in_the_old_torch_format_load(tmp_path):
    write_checkpoint(tmp_path, layout="bin")
    file = tmp_path / "pytorch_model.bin"
    torch.save(random_weights(TINY), file, _use_new_zipfile_serialization=False)
    assert len(Engine.load(tmp_path).logits(IDS)) == len(IDS)


def test_folders_without_model_or_weights_say_so(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no model folder"):
        Engine.load(tmp_path / "absent")
    write_checkpoint(tmp_path, layout="bin")
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        Engine.load(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    write_checkpoint(tmp_path, replace(TINY, padded_vocab_size=200))
    with pytest.raises(CheckpointError, match="different models"):
        Engine.load(tmp_path)


# ---------------------------------------------------------------- prefixes


def write_golden(folder, extra=None, **keys):
    """The golden tiny model as a folder; padded with rows so that the byte tokenizer fits."""
    config = golden_config()
    weights = golden_weights(extra)
    for name in ("embedding.word_embeddings", "output_layer"):
        weight = weights[f"transformer.{name}.weight"]
        padding = torch.zeros(264 - len(weight), weight.shape[1])
        weights[f"transformer.{name}.weight"] = torch.cat([weight, padding])
    write_checkpoint(folder, replace(config, padded_vocab_size=264), weights=weights)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    return folder


def check_prefix(engine, kind) -> None:
    expected = torch.tensor(RESULTS[f"ptuning_pre4_{kind}"]["last_logits_first8"])
    actual = engine.logits(INPUT_IDS)[-1, :8]
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["plain", "projection"])
def test_prefix_inside_the_checkpoint(tmp_path, kind):
    extra = RESULTS[f"ptuning_pre4_{kind}"]["extra_tensors"]
    keys = {"pre_seq_len": 4, "prefix_projection": kind == "projection"}
    check_prefix(Engine.load(write_golden(tmp_path, extra, **keys)), kind)


@pytest.mark.parametrize("kind", ["plain", "projection"])
@pytest.mark.parametrize("place", ["file", "folder"])
def test_prefix_in_a_file_of_its_own(tmp_path, kind, place):
    names = RESULTS[f"ptuning_pre4_{kind}"]["extra_tensors"]
    weights = {k: v for k, v in golden_weights(names).items() if k in names}
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    save_tensors(tuned / "pytorch_model.bin", weights)
    path = tuned if place == "folder" else tuned / "pytorch_model.bin"
    base = write_golden(tmp_path / "base")
    check_prefix(Engine.load(base, prefix_checkpoint=path), kind)


def test_prefix_tokens_take_no_room_in_the_window(tmp_path):
    extra = RESULTS["ptuning_pre4_plain"]["extra_tensors"]
    engine = Engine.load(write_golden(tmp_path, extra, pre_seq_len=4))
    assert len(engine.logits([1] * engine.context_window)) == engine.context_window


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "no prefix_encoder"),
        ({"embedding.weight": torch.zeros(4, 7)}, "shape"),
        ({"embedding.weight": torch.zeros(4, 128), "trans.0.bias": torch.zeros(64)}, r"trans\.0"),
        ({"embedding.weight": torch.zeros(4, 128), "trans.0.weight": torch.zeros(64, 128)}, "lack"),
        ({"trans.0.weight": torch.zeros(64, 128)}, "lacks"),
    ],
)
def test_broken_prefixes_are_named(tmp_path, weights, message):
    base = write_golden(tmp_path / "base")
    torch.save(weights, tmp_path / "prefix.bin")
    with pytest.raises(CheckpointError, match=message):
        Engine.load(base, prefix_checkpoint=tmp_path / "prefix.bin")


def test_a_configured_prefix_must_be_there_and_fit(tmp_path):
    base = write_golden(tmp_path / "base", pre_seq_len=5)
    with pytest.raises(CheckpointError, match="prefix_checkpoint"):
        Engine.load(base)
    save_tensors(tmp_path / "prefix.bin", {"embedding.weight": torch.zeros(4, 128)})
    with pytest.raises(CheckpointError, match="4 tokens"):
        Engine.load(base, prefix_checkpoint=tmp_path / "prefix.bin")
    with pytest.raises(ConfigError, match="does not exist"):
        Engine.load(base, prefix_checkpoint=tmp_path / "absent.bin")


def test_byte_tokenizer_of_the_tests_is_a_valid_file():
    assert json.loads(byte_tokenizer_json())["model"]["type"] == "BPE"
