"""An exported folder is a stock transformers checkpoint with this engine's logits."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import warnings
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.engine.config import ModelConfig
from glm_rag.engine.engine import Engine
from glm_rag.engine.generate import all_logits
from glm_rag.engine.weights import attach_kernels
from glm_rag.errors import CheckpointError, ConfigError, GlmRagError, ModelError
from glm_rag.models.export.export import export_model
from glm_rag.models.export.glm_hf import plan_shards
from glm_rag.models.export.glm_names import glm_parts
from glm_rag.models.export.parts import Part
from glm_rag.models.quantized import save_quantized
from tiny_checkpoints import TINY, config_json, random_weights, save_tensors, write_checkpoint

SHAPES = {
    "plain": {},
    "heads x channels above hidden size": {"hidden_size": 48, "kv_channels": 32},
    "heads x channels below hidden size": {"hidden_size": 96, "kv_channels": 8},
    "one group, no qkv bias": {
        "num_kv_groups": 1,
        "num_attention_heads": 6,
        "add_qkv_bias": False,
    },
    "group per head, odd sizes": {
        "num_kv_groups": 4,
        "ffn_hidden_size": 133,
        "padded_vocab_size": 271,
    },
}
RULES = {
    "interpolate": {"rope_mode": "interpolate", "rope_ratio": 16.0},
    "scale_base": {"rope_mode": "scale_base", "rope_ratio": 50.0, "rope_theta": 500000.0},
    "ratio 1": {},
}
IDS = torch.randint(0, 256, (90,), generator=torch.Generator().manual_seed(1)).tolist()


def stock_logits(folder, ids=IDS):
    """Logits of transformers' own model of the folder; remote code is off by default."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns on import about its own plans
        from transformers import AutoModelForCausalLM, GlmForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is GlmForCausalLM
    with torch.inference_mode():
        return model.eval()(torch.tensor([ids])).logits[0].float()


def our_logits(folder, ids=IDS):
    return all_logits(Engine.load(folder, dtype="float32").model, ids, chunk=64)


def stock_tokenizer(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_the_engine(tmp_path, shape, rule):
    config = replace(TINY, **SHAPES[shape], **RULES[rule])
    source = write_checkpoint(tmp_path / "source", config, weights=random_weights(config, seed=3))
    export_model(source, tmp_path / "out")
    difference = (stock_logits(tmp_path / "out") - our_logits(source)).abs().max()
    assert difference < 1e-4


def test_the_older_names_of_the_rotary_settings_mean_the_same(tmp_path):
    config = replace(TINY, **RULES["interpolate"])
    source = write_checkpoint(tmp_path / "source", config)
    export_model(source, tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    settings = json.loads(path.read_text())
    del settings["rope_parameters"]
    path.write_text(json.dumps(settings))
    assert (stock_logits(tmp_path / "out") - our_logits(source)).abs().max() < 1e-4


def test_the_window_is_the_published_one_times_the_factor(tmp_path):
    published = ModelConfig.from_dict(
        config_json(replace(TINY, seq_length=32768, **RULES["interpolate"]))
    )
    source = write_checkpoint(tmp_path / "source", published)
    export_model(source, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["rope_scaling"] == {"rope_type": "linear", "factor": 16.0}
    assert settings["max_position_embeddings"] * settings["rope_scaling"]["factor"] == 32768
    assert stock_tokenizer(tmp_path / "out").model_max_length == 32768


@pytest.mark.parametrize("layout", ["bin", "sharded-bin", "sharded-safetensors"])
def test_any_layout_gives_the_same_files(tmp_path, layout):
    plain = write_checkpoint(tmp_path / "plain")
    other = write_checkpoint(tmp_path / "other", layout=layout)
    for source, target in ((plain, "a"), (other, "b")):
        export_model(source, tmp_path / target)
    a, b = ((tmp_path / n / "model.safetensors").read_bytes() for n in "ab")
    assert a == b


@pytest.mark.parametrize("quantize", ["int4", "int8"])
def test_a_rounded_source_is_exported_as_the_values_it_stands_for(tmp_path, quantize):
    config = replace(TINY, hidden_size=64, ffn_hidden_size=96, padded_vocab_size=272)
    source = write_checkpoint(tmp_path / "source", config)
    save_quantized(source, tmp_path / "rounded", quantize=quantize)
    report = export_model(tmp_path / "rounded", tmp_path / "out", dtype="float32")
    assert "rounded" in report.notes[0]
    model = Engine.load(tmp_path / "rounded", dtype="float32", kv_cache="float32").model
    attach_kernels(model, prefer="torch")  # the others round activations, too
    assert (stock_logits(tmp_path / "out") - all_logits(model, IDS)).abs().max() < 1e-4


@pytest.mark.parametrize("bits", [4, 8])
def test_a_published_rounded_source_is_exported_value_for_value(tmp_path, bits):
    config = replace(TINY, name="chatglm2-tiny")
    weights, plain = random_weights(config), {}
    for name, value in list(weights.items()):
        plain[name] = value
        if ".layers." in name and value.dim() == 2:
            scale = (value.abs().amax(1) / (2 ** (bits - 1) - 1)).half()
            rounded = (value / scale.float()[:, None]).round().clamp(-7 if bits == 4 else -127, 127)
            rounded = rounded.clamp(max=2 ** (bits - 1) - 1).to(torch.int8)
            plain[name] = rounded.float() * scale.float()[:, None]
            if bits == 4:
                rounded = (rounded[:, ::2] << 4) | (rounded[:, 1::2] & 15)
            weights[name], weights[name + "_scale"] = rounded, scale
    source = write_checkpoint(tmp_path / "source", config, weights=weights)
    settings = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**settings, "quantization_bit": bits}))
    export_model(source, tmp_path / "out", dtype="float32")
    exact = write_checkpoint(tmp_path / "exact", config, weights=plain)
    export_model(exact, tmp_path / "exact-out", dtype="float32")
    a, b = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("out", "exact-out"))
    assert a == b


def test_weights_keep_their_type_unless_another_is_asked_for(tmp_path):
    weights = {name: value.half() for name, value in random_weights(TINY).items()}
    source = write_checkpoint(tmp_path / "source", weights=weights, layout="bin")
    assert export_model(source, tmp_path / "a").dtype == "float16"
    assert export_model(source, tmp_path / "b", dtype="bfloat16").dtype == "bfloat16"
    assert json.loads((tmp_path / "b" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    a, b = stock_logits(tmp_path / "a"), stock_logits(tmp_path / "b")
    assert (a - b).norm() / a.norm() < 0.05


# ---------------------------------------------------------------- files


def test_large_models_are_cut_into_files_with_an_index(tmp_path):
    config = replace(TINY, num_layers=8, hidden_size=128, ffn_hidden_size=256)
    source = write_checkpoint(tmp_path / "source", config, weights=random_weights(config))
    seen = []
    report = export_model(
        source, tmp_path / "out", max_shard=1_000_000, on_progress=lambda *step: seen.append(step)
    )
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) == report.num_files > 2
    assert all(file.stat().st_size < 1_010_000 for file in files)
    assert seen[-1] == ("writing", seen[-1][2], seen[-1][2])
    assert [done for step, done, _ in seen if step == "writing"] == sorted(
        done for step, done, _ in seen if step == "writing"
    )
    assert (stock_logits(tmp_path / "out") - our_logits(source)).abs().max() < 1e-4


def test_a_tensor_larger_than_a_file_has_one_to_itself():
    parts = [Part(str(size), "", 0, size) for size in (10, 500, 10, 80, 20)]
    cut = [[part.stop for part in shard] for shard in plan_shards(parts, 1, 100)]
    assert cut == [[10], [500], [10, 80], [20]]


def test_every_row_of_every_source_tensor_is_used_once():
    used = {}
    for part in glm_parts(TINY):
        used.setdefault(part.source, []).append((part.start, part.stop))
    shapes = {k.removeprefix("transformer."): v.shape for k, v in random_weights(TINY).items()}
    assert used.keys() == shapes.keys()
    for name, ranges in used.items():
        assert [start for start, _ in ranges] == [0, *[stop for _, stop in ranges[:-1]]]
        assert ranges[-1][1] == shapes[name][0]


def test_licences_go_along_and_unused_ids_are_never_sampled(tmp_path):
    source = write_checkpoint(tmp_path / "source")
    (source / "MODEL_LICENSE").write_text("terms")
    export_model(source, tmp_path / "out")
    assert (tmp_path / "out" / "MODEL_LICENSE").read_text() == "terms"
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["suppress_tokens"] == list(range(259, 264))
    assert generation["eos_token_id"] == [256, 258]


# ---------------------------------------------------------------- bad input


def broken(tmp_path, change) -> GlmRagError:
    """The error of exporting a checkpoint after `change`; nothing is left behind."""
    source = write_checkpoint(tmp_path / "source")
    change(source)
    with pytest.raises(GlmRagError) as caught:
        export_model(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("source", "home")] == []
    assert "\n" not in str(caught.value)
    return caught.value


def rewrite(source, change):
    weights = random_weights(TINY)
    change(weights)
    save_tensors(source / "model.safetensors", weights)


NORM = "transformer.encoder.final_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda s: rewrite(s, lambda w: w.pop(NORM)), CheckpointError, "lacks"),
        (lambda s: rewrite(s, lambda w: w.update(x=torch.ones(2))), CheckpointError, "unknown"),
        (lambda s: rewrite(s, lambda w: w.update({NORM: torch.ones(3)})), CheckpointError, "shape"),
        (lambda s: os.truncate(s / "model.safetensors", 5000), CheckpointError, "truncated"),
        (lambda s: (s / "tokenizer.json").unlink(), CheckpointError, "tokenizer"),
        (lambda s: (s / "tokenizer.json").write_text("{}"), CheckpointError, "tokenizer"),
    ],
)
def test_a_broken_source_leaves_no_folder(tmp_path, change, kind, words):
    error = broken(tmp_path, change)
    assert isinstance(error, kind)
    assert words in str(error)


def test_a_prefix_has_no_place_in_stock_glm(tmp_path):
    def add_prefix(source):
        settings = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps({**settings, "pre_seq_len": 4}))

    assert "P-tuning prefix" in str(broken(tmp_path, add_prefix))


def test_values_beyond_float16_are_refused(tmp_path):
    source = write_checkpoint(tmp_path / "source")
    rewrite(source, lambda w: w[NORM].fill_(1e6))
    with pytest.raises(ModelError, match="bfloat16"):
        export_model(source, tmp_path / "out", dtype="float16")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    source = write_checkpoint(tmp_path / "source")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(ConfigError, match="not empty"):
        export_model(source, tmp_path / "out")
    (tmp_path / "out" / "mine.txt").unlink()
    export_model(source, tmp_path / "out")  # an empty one is taken


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert "not enough space" in str(broken(tmp_path, lambda source: None))


def test_a_run_that_breaks_leaves_nothing_and_the_next_one_works(tmp_path):
    source = write_checkpoint(tmp_path / "source")

    def stop(step, done, _total):
        if step == "writing" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_model(source, tmp_path / "out", on_progress=stop)
    assert not (tmp_path / "out").exists()
    (tmp_path / ".out.partial").mkdir()  # what a killed run leaves
    export_model(source, tmp_path / "out")
    assert not (tmp_path / ".out.partial").exists()


def test_two_exports_into_one_folder_do_not_mix(tmp_path):
    source = write_checkpoint(tmp_path / "source")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(ModelError, match="another export"):
        export_model(source, tmp_path / "out")
    os.close(descriptor)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "onnx"], "unknown format"),
        (["--dtype", "int3"], "dtype must be"),
        (["--max-shard", "3"], "room for"),
        (["--max-shard", "big"], "is no size"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, words):
    source = write_checkpoint(tmp_path / "source")
    command = ["model", "export", str(source), "--out", str(tmp_path / "out"), *arguments]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)


def test_the_command_says_what_it_wrote(tmp_path):
    source = write_checkpoint(tmp_path / "source", replace(TINY, **RULES["interpolate"]))
    command = ["model", "export", str(source), "--out", str(tmp_path / "out"), "--json"]
    report = json.loads(CliRunner().invoke(app, command).stdout)
    assert report["path"] == str(tmp_path / "out")
    assert report["num_files"] == 1
    assert report["context_window"] == 1024
