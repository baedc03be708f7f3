"""Whole models in 4 and 8 bits: every kernel, every way to load, one result."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from test_engine_oracle import IDS, reference_logits

from glm_rag.engine.engine import Engine
from glm_rag.engine.kernels import native
from glm_rag.engine.linear import QuantizedMatrix
from glm_rag.engine.quantize import dequantize, unpack
from glm_rag.engine.weights import attach_kernels
from glm_rag.errors import CheckpointError, ConfigError, ModelError
from glm_rag.models.loading import model_info
from glm_rag.models.quantized import save_quantized
from glm_rag.types import SamplingParams
from tiny_checkpoints import TINY, random_weights, save_tensors, write_checkpoint

SHAPE = replace(
    TINY, hidden_size=64, ffn_hidden_size=96, kv_channels=32, num_attention_heads=6, num_kv_groups=2
)
BACKENDS = ("native-avx512", "native-avx2", "torch")
GREEDY = SamplingParams(temperature=0, max_tokens=24)


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "source", SHAPE)


def load(folder, *, prefer="auto", **options):
    engine = Engine.load(folder, **{"quantize": "int4", **options})
    if prefer != "auto":
        attach_kernels(engine.model, prefer)
        if engine.backend != prefer:
            pytest.skip(engine.model.backend.reason)
    return engine


def rounded_weights(engine):
    """What the engine's weights stand for, by published name."""
    modules = dict(engine.model.named_modules())
    weights = {f"transformer.{n}": p.float() for n, p in engine.model.named_parameters()}
    for name, module in modules.items():
        if isinstance(module, QuantizedMatrix):
            weights[f"transformer.{name}.weight"] = dequantize(module.weight)
    return weights


def difference(actual, expected):
    return float((actual - expected).norm() / expected.norm())


# ---------------------------------------------------------------- numerics


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("quantize", "group", "embedding_bits"),
    [("int4", 32, 8), ("int4", 128, 4), ("int8", 32, 0), ("int8", 128, 8)],
)
def test_logits_are_those_of_the_rounded_weights(folder, backend, quantize, group, embedding_bits):
    """Within what 8-bit activations cost; torch computes with floats and is exact."""
    options = {"quantize": quantize, "group": group, "embedding_bits": embedding_bits}
    engine = load(folder, prefer=backend, kv_cache="float32", **options)
    expected = reference_logits(SHAPE, rounded_weights(engine))
    bound = 1e-5 if backend == "torch" else 0.04
    assert difference(engine.logits(IDS), expected) < bound


@pytest.mark.parametrize(("quantize", "bound"), [("int8", 0.06), ("int4", 0.45)])
def test_rounding_stays_within_its_bound(folder, quantize, bound):
    exact = reference_logits(SHAPE, random_weights(SHAPE))
    assert difference(load(folder, quantize=quantize).logits(IDS), exact) < bound


@pytest.mark.parametrize("rule", [{"rope_ratio": 16.0}, {"rope_theta": 5e5, "rope_ratio": 50.0}])
@pytest.mark.parametrize(
    "shape",
    [{}, {"num_kv_groups": 1}, {"num_attention_heads": 32}, {"add_qkv_bias": False}],
    ids=["plain", "one group", "16 heads a group", "no bias"],
)
def test_compiled_blocks_agree_with_the_modules(tmp_path, shape, rule):
    mode = "scale_base" if "rope_theta" in rule else "interpolate"
    folder = write_checkpoint(tmp_path, replace(SHAPE, rope_mode=mode, **shape, **rule))
    engine = load(folder, kv_cache="float32")
    assert engine.model.native is not None, engine.model.backend.reason
    compiled = engine.logits(IDS)
    engine.model.native = None
    assert difference(compiled, engine.logits(IDS)) < 0.01


@pytest.mark.parametrize("backend", ["native-avx512", "native-avx2"])
def test_closed_gates_stay_closed(tmp_path, backend):
    """e^x must not leave its range where a gate is far below zero."""
    weights = random_weights(SHAPE)
    for name, value in weights.items():
        if "dense_h_to_4h" in name:
            value[: SHAPE.ffn_hidden_size] *= 300
    folder = write_checkpoint(tmp_path, SHAPE, weights=weights)
    engine = load(folder, prefer=backend, quantize="int8", kv_cache="float32")
    assert engine.model.native is not None
    compiled = engine.logits(IDS)
    engine.model.native = None
    assert difference(compiled, engine.logits(IDS)) < 0.01


def test_a_wrong_rotary_rule_shows(tmp_path):
    right = load(write_checkpoint(tmp_path / "a", replace(SHAPE, rope_ratio=16.0)))
    wrong = load(write_checkpoint(tmp_path / "b", replace(SHAPE, rope_ratio=1.0)))
    assert difference(wrong.logits(IDS), right.logits(IDS)) > 0.1


@pytest.mark.parametrize("kv_cache", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_do_not_change_a_bit(folder, kv_cache, chunk):
    engine = load(folder, kv_cache=kv_cache)
    whole = engine.logits(IDS)
    engine.prefill_chunk = chunk
    assert torch.equal(engine.logits(IDS), whole)


@pytest.mark.parametrize(("kv_cache", "bound"), [("bfloat16", 0.03), ("int8", 0.05)])
def test_a_smaller_cache_stays_close(folder, kv_cache, bound):
    exact = load(folder, quantize="int8", kv_cache="float32").logits(IDS)
    assert difference(load(folder, quantize="int8", kv_cache=kv_cache).logits(IDS), exact) < bound


@pytest.mark.parametrize("threads", [1, 3])
def test_a_long_context_is_split_over_threads_without_a_trace(folder, threads):
    ids = (IDS * 9)[:700]
    expected = load(folder, threads=2, kv_cache="float32").logits(ids)
    engine = load(folder, threads=threads, kv_cache="float32")
    cache = engine.read(ids[:-1])  # the last token alone sees 699 others, in several shares
    delta = next(iter(engine.generate(ids, SamplingParams(temperature=0), cache=cache)))
    assert delta.token_ids == () or delta.token_ids[0] == int(expected[-1, :259].argmax())
    assert difference(engine.logits(ids), expected) < 1e-5


# ---------------------------------------------------------------- generation


def test_speculation_and_kept_prefixes_do_not_change_the_text(folder):
    engine = load(folder)
    prompt = engine.tokenizer.encode("one two three one two three one two ")
    plain = list(engine.generate(prompt, replace(GREEDY, speculate=False)))
    drafted = list(engine.generate(prompt, replace(GREEDY, speculate=True)))
    kept = list(engine.generate(prompt, GREEDY, cache=engine.read(prompt[:20])))

    def ids(deltas):
        return [i for delta in deltas for i in delta.token_ids]

    assert ids(plain) == ids(drafted) == ids(kept)
    assert kept[-1].usage.cached_tokens == 20


def test_two_threads_may_generate_at_once(folder):
    from concurrent.futures import ThreadPoolExecutor

    engine = load(folder)
    prompts = [engine.tokenizer.encode(text) for text in ("abc", "something longer to read")]

    def answer(prompt):
        return [i for delta in engine.generate(prompt, GREEDY) for i in delta.token_ids]

    alone = [answer(prompt) for prompt in prompts]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(answer, prompts * 3)) == alone * 3


# ---------------------------------------------------------------- loading


def test_without_a_compiler_the_model_still_answers(folder, monkeypatch, caplog):
    expected = load(folder, prefer="torch").logits(IDS)

    def no_compiler(*_arguments):
        raise ModelError("there is no C++ compiler: install g++")

    monkeypatch.setattr(native, "load", no_compiler)
    engine = load(folder)
    assert engine.backend == "torch"
    assert "no C++ compiler" in caplog.text
    assert torch.equal(engine.logits(IDS), expected)
    assert list(engine.generate(IDS, GREEDY))[-1].finish_reason


def published(folder, bits):
    """Turn a checkpoint folder into the published quantized form; returns q by name."""
    weights, stored = random_weights(SHAPE), {}
    for name in [n for n in weights if n.endswith(".weight") and "layers" in n]:
        if "layernorm" in name:
            continue
        weight = weights.pop(name)
        scale = weight.abs().amax(1) / ((1 << (bits - 1)) - 1)
        q = (weight / scale.unsqueeze(1)).round().to(torch.int8)
        stored[name] = q
        weights[f"{name}_scale"] = scale.half()
        weights[name] = q if bits == 8 else (q[:, ::2] << 4) | (q[:, 1::2] & 15)
    save_tensors(folder / "pytorch_model.bin", weights)
    (folder / "model.safetensors").unlink()
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_bit": bits}))
    return stored


@pytest.mark.parametrize("bits", [4, 8])
def test_published_quantized_checkpoints_load_value_for_value(folder, bits):
    stored = published(folder, bits)
    engine = Engine.load(folder)
    modules = dict(engine.model.named_modules())
    for name, q in stored.items():
        module = modules[name.removeprefix("transformer.").removesuffix(".weight")]
        assert torch.equal(unpack(module.weight)[0], q)
    assert model_info(folder).file_dtype == f"int{bits}"
    expected = reference_logits(SHAPE, rounded_weights(engine))
    attach_kernels(engine.model, "torch")
    engine.model.kv_dtype = torch.float32
    assert difference(engine.logits(IDS), expected) < 1e-5


def test_published_checkpoints_cannot_become_other_bits(folder):
    published(folder, 4)
    with pytest.raises(ConfigError, match="holds int4 weights and cannot become int8"):
        Engine.load(folder, quantize="int8")


def test_a_published_checkpoint_without_scales_is_refused_by_name(folder):
    published(folder, 4)
    file = folder / "pytorch_model.bin"
    weights = torch.load(file)
    gone = next(name for name in weights if name.endswith("_scale"))
    del weights[gone]
    torch.save(weights, file)
    with pytest.raises(CheckpointError, match=gone):
        Engine.load(folder)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("embedding_bits", [0, 4, 8])
def test_a_saved_model_is_the_one_rounded_on_load(folder, tmp_path, bits, embedding_bits):
    options = {"quantize": f"int{bits}", "embedding_bits": embedding_bits}
    saved = save_quantized(folder, tmp_path / "saved", **options)
    engine = Engine.load(saved)
    assert engine.config.quantization.bits == bits
    assert torch.equal(engine.logits(IDS), load(folder, **options).logits(IDS))
    assert model_info(saved).file_dtype == f"int{bits}"
    assert {path.name for path in saved.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }


def test_a_published_checkpoint_can_be_saved_in_the_mapped_layout(folder, tmp_path):
    published(folder, 4)
    saved = save_quantized(folder, tmp_path / "saved", quantize="auto")
    assert torch.equal(Engine.load(saved).logits(IDS), Engine.load(folder).logits(IDS))


def test_packed_weights_of_a_saved_model_begin_at_cache_lines(folder, tmp_path):
    saved = save_quantized(folder, tmp_path / "saved", quantize="int4")
    file = (saved / "model.safetensors").read_bytes()
    length = int.from_bytes(file[:8], "little")
    for name, entry in json.loads(file[8 : 8 + length]).items():
        if name.endswith("packed"):
            assert (8 + length + entry["data_offsets"][0]) % 64 == 0


def test_an_existing_folder_is_never_overwritten(folder, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="exists: choose another folder"):
        save_quantized(folder, tmp_path / "there", quantize="int4")


def test_a_broken_source_leaves_no_folder(folder, tmp_path):
    weights = random_weights(SHAPE)
    del weights["transformer.output_layer.weight"]
    save_tensors(folder / "model.safetensors", weights)
    with pytest.raises(CheckpointError, match="output_layer"):
        save_quantized(folder, tmp_path / "saved", quantize="int4")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "home"}


def test_a_saved_model_of_the_wrong_shape_is_refused_by_name(folder, tmp_path):
    saved = save_quantized(folder, tmp_path / "saved", quantize="int4")
    file = saved / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ffn_hidden_size": 128}))
    with pytest.raises(CheckpointError, match=r"dense_.*packed has shape"):
        Engine.load(saved)


@pytest.mark.parametrize(("part", "dtype"), [("scales", "bfloat16"), ("packed", "int8")])
def test_a_saved_model_of_the_wrong_types_is_refused_by_name(folder, tmp_path, part, dtype):
    from safetensors.torch import load_file

    saved = save_quantized(folder, tmp_path / "saved", quantize="int4")
    tensors = load_file(saved / "model.safetensors")
    name = next(n for n in tensors if n.endswith(part))
    tensors[name] = tensors[name].to(getattr(torch, dtype))
    save_tensors(saved / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=rf"{part} holds torch.{dtype} values"):
        Engine.load(saved)


def test_a_width_that_no_group_divides_is_a_clear_error(tmp_path):
    folder = write_checkpoint(tmp_path, TINY)  # 48 columns in its MLP
    with pytest.raises(ConfigError, match="48 columns cannot be quantized"):
        Engine.load(folder, quantize="int4")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int3"}, "quantize must be"),
        ({"group": 64}, "group must be one of 32, 128"),
        ({"embedding_bits": 2}, "embedding_bits must be one of"),
        ({"kv_cache": "int4"}, "kv_cache must be"),
    ],
)
def test_wrong_numbers_are_refused(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        load(folder, **options)
