"""The engine on a CUDA device gives the CPU's results; skipped where there is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from fakes import tiny_engine, write_checkpoint
from glm_rag.engine.engine import Engine
from glm_rag.errors import ModelError
from glm_rag.types import CacheLimits, SamplingParams
from tiny_checkpoints import TINY

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SHAPE = {"hidden_size": 64, "ffn_hidden_size": 96}
IDS = [(7 * i) % 250 for i in range(700)]
GREEDY = SamplingParams(max_tokens=20, temperature=0)
KINDS = {
    "unquantized": {},
    "int8": {"quantize": "int8"},
    "int4": {"quantize": "int4"},
    "int4, int4 embedding": {"quantize": "int4", "embedding_bits": 4},
    "int8, whole embedding": {"quantize": "int8", "embedding_bits": 0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model"), replace(TINY, **SHAPE))


def load(folder, dtype="float32", **settings):
    engine = Engine.load(folder, device="cuda", dtype=dtype, **settings)
    assert engine.model.graphs is not None
    return engine


def answer(engine, ids=IDS, params=GREEDY, cache=None):
    deltas = list(engine.generate(ids, params, cache=cache))
    return [i for delta in deltas for i in delta.token_ids], deltas[-1].usage


def difference(actual, expected):
    return float((actual.cpu().float() - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.08), ("float16", 0.02)]
)
def test_logits_are_close_to_those_of_the_cpu(folder, dtype, tolerance):
    expected = tiny_engine(**SHAPE).logits(IDS)
    assert difference(load(folder, dtype).logits(IDS), expected) < tolerance


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_quantized_logits_are_close_to_those_of_the_cpu(folder, kind, dtype):
    on_cpu = Engine.load(folder, device="cpu", dtype="float32", kv_cache="float32", **KINDS[kind])
    # The CPU's kernels round activations to 8 bits.
    tolerance = 0.05 if on_cpu.backend.startswith("native") else 0.01
    engine = load(folder, dtype, **KINDS[kind])
    assert engine.backend == ("triton" if kind != "unquantized" else "torch")
    limit = max(tolerance, 0.08 if dtype == "bfloat16" else 0.02)
    assert difference(engine.logits(IDS), on_cpu.logits(IDS)) < limit


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kv_cache", ["auto", "int8"])
def test_recorded_steps_give_the_greedy_text_of_the_modules(folder, kind, kv_cache):
    engine = load(folder, kv_cache=kv_cache, **KINDS[kind])
    ids, _ = answer(engine)
    engine.model.graphs = None
    assert ids == answer(engine)[0]


@pytest.mark.parametrize("speculate", [True, False])
def test_greedy_text_is_that_of_the_cpu(folder, speculate):
    params = replace(GREEDY, max_tokens=60, speculate=speculate, loop_guard=False)
    ids, usage = answer(load(folder), params=params)
    assert ids == answer(tiny_engine(**SHAPE), params=params)[0]
    assert not speculate or usage.drafted_tokens


@pytest.mark.parametrize("kv_cache", ["auto", "int8"])
def test_a_batch_gives_each_the_text_it_gets_alone(folder, kv_cache):
    engine = load(folder, kv_cache=kv_cache)
    prompts = [IDS[:length] for length in (300, 5, 70, 71, 1)]
    params = [replace(GREEDY, max_tokens=most) for most in (20, 3, 30, 9, 12)]
    texts: dict[int, list[int]] = {}
    for number, delta in engine.generate_batch(prompts, params):
        texts.setdefault(number, []).extend(delta.token_ids)
    expected = {
        number: answer(engine, prompt, own)[0]
        for number, (prompt, own) in enumerate(zip(prompts, params, strict=True))
    }
    assert texts == expected


@pytest.mark.parametrize("kv_cache", ["auto", "int8"])
def test_what_was_read_is_not_read_again(folder, kv_cache):
    engine = load(folder, kv_cache=kv_cache)
    expected, _ = answer(engine)
    engine.keep_sequences(CacheLimits(memory_bytes=1 << 26, disk_bytes=0, folder=None))
    assert answer(engine)[0] == expected
    ids, usage = answer(engine)
    assert ids == expected
    assert usage.cached_tokens == len(IDS) - 1


@pytest.mark.parametrize("max_running", [None, 4])
def test_threads_do_not_disturb_each_other(folder, max_running):
    engine = load(folder, "float32", quantize="int8")
    prompts = [IDS[start : start + 90] for start in range(6)]
    expected = [answer(engine, prompt)[0] for prompt in prompts]
    fresh = load(folder, "float32", quantize="int8")
    fresh.serve(max_running)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda prompt: answer(fresh, prompt)[0], prompts)) == expected


def test_auto_takes_the_cuda_device_in_16_bit(folder):
    engine = Engine.load(folder)
    assert engine.device.type == "cuda"
    assert engine.dtype in (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("num_deltas", [1, 5])
def test_closing_the_stream_frees_device_memory(folder, num_deltas):
    engine = load(folder)
    answer(engine)  # records what it needs
    before = torch.cuda.memory_allocated()
    stream = engine.generate(IDS, GREEDY)
    for _ in range(num_deltas):
        next(stream)
    assert torch.cuda.memory_allocated() > before
    stream.close()
    assert torch.cuda.memory_allocated() <= before


def test_a_device_without_memory_is_one_line_and_the_next_answer_is_right(folder):
    engine = load(folder)
    expected, _ = answer(engine)
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    try:
        with pytest.raises(ModelError, match="too little memory") as caught:
            list(engine.generate_batch([IDS] * 8, GREEDY))
        assert "\n" not in str(caught.value)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert answer(engine)[0] == expected
