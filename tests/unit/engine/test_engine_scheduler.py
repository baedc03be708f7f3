"""Answers that decode together: each is what it gives alone, whoever comes and goes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from together import GREEDY, PROMPTS, SAMPLED, Passes, alone, reading, summary, wait_until

from glm_rag.engine import batch as batch_module
from glm_rag.engine import prefix_files
from glm_rag.engine.engine import Engine
from glm_rag.types import CacheLimits, ChatTurn
from tiny_checkpoints import TINY, tiny_engine

# ---------------------------------------------------------------- as if alone


@pytest.mark.parametrize("params", [GREEDY, SAMPLED, replace(SAMPLED, repetition_penalty=1.3)])
@pytest.mark.parametrize("max_running", [1, 2, 8])
def test_every_answer_is_what_its_prompt_gives_alone(engine, params, max_running):
    engine.serve(max_running)
    streams = [engine.generate(prompt, params) for prompt in PROMPTS]
    assert [summary(list(s)) for s in streams] == [alone(p, params) for p in PROMPTS]


@pytest.mark.parametrize(
    "shape",
    [
        {"rope_ratio": 4.0},
        {"rope_ratio": 4.0, "rope_mode": "scale_base"},
        {"num_kv_groups": 1, "add_qkv_bias": False},
    ],
)
def test_answers_that_join_in_the_middle_are_what_they_are_alone(shape):
    engine = tiny_engine(**shape)
    engine.serve(8)
    first = engine.generate(PROMPTS[0], GREEDY)
    begun = [next(first) for _ in range(5)]
    second = engine.generate(PROMPTS[2], SAMPLED)
    begun_second = [next(second) for _ in range(3)]
    third = engine.generate(PROMPTS[1], replace(GREEDY, max_tokens=4))
    assert summary(list(third)) == alone(PROMPTS[1], replace(GREEDY, max_tokens=4), **shape)
    assert summary([*begun_second, *second]) == alone(PROMPTS[2], SAMPLED, **shape)
    assert summary([*begun, *first]) == alone(PROMPTS[0], GREEDY, **shape)


@pytest.mark.parametrize(("kv_dtype", "params"), [(None, SAMPLED), (torch.int8, GREEDY)])
def test_a_prefix_and_8_bit_caches_change_nothing(kv_dtype, params):
    engine, single = tiny_engine(), tiny_engine()
    shape = (TINY.num_layers, 2, TINY.num_kv_groups, 5, TINY.kv_channels)
    prefix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for one in (engine, single):
        one.model.prefix, one.model.kv_dtype = prefix, kv_dtype
    engine.serve(3)
    streams = [engine.generate(prompt, params) for prompt in PROMPTS]
    expected = [summary(list(single.generate(prompt, params))) for prompt in PROMPTS]
    assert [summary(list(stream)) for stream in streams] == expected


def test_stop_strings_loops_and_limits_end_only_their_answer(engine):
    with torch.no_grad():
        engine.model.output_layer.weight.zero_()  # it says id 0 for ever
    params = [
        replace(GREEDY, stop=(engine.tokenizer.decode([0]) * 5,)),
        replace(GREEDY, max_tokens=7),
        replace(GREEDY, max_tokens=400, loop_guard=True),
    ]
    expected = [
        summary(list(engine.generate(p, one))) for p, one in zip(PROMPTS, params, strict=True)
    ]
    engine.serve(3)
    streams = [engine.generate(p, one) for p, one in zip(PROMPTS, params, strict=True)]
    assert [summary(list(stream)) for stream in streams] == expected
    assert [reason for *_, reason in expected] == ["stop", "length", "repetition"]


def test_running_answers_share_passes_and_wait_for_one_chunk_of_a_prompt_at_most(
    engine, monkeypatch
):
    monkeypatch.setattr(batch_module, "SHARED_CHUNK", 16)
    passes = Passes(engine)
    engine.serve(4)
    first = engine.generate(PROMPTS[0], replace(GREEDY, max_tokens=300, speculate=False))
    next(first)
    passes.gate.clear()
    second = engine.generate(PROMPTS[2], replace(GREEDY, speculate=False))
    passes.rows.clear()
    passes.gate.set()
    list(second)
    reading = [rows for rows in passes.rows if rows > 2]
    assert max(reading) == 16
    assert sum(reading) >= len(PROMPTS[2]) - 16
    between = passes.rows[passes.rows.index(16) : len(passes.rows) - passes.rows[::-1].index(16)]
    assert between[1::2] == [1] * (len(between) // 2)
    assert passes.rows.count(2) >= 38
    first.close()


# ---------------------------------------------------------------- kept sequences


def test_a_kept_beginning_is_shared_counted_and_exact(engine):
    engine.keep_sequences(CacheLimits(memory_bytes=10**8))
    engine.serve(4)
    shared = list(b"you are a helpful assistant who answers from the documents. " * 3)
    prompts = [[*shared, *b"one"], [*shared, *b"another"], [*shared, *b"a third"]]
    list(engine.generate(shared, GREEDY))
    streams = [engine.generate(prompt, SAMPLED) for prompt in prompts]
    found = [list(stream) for stream in streams]
    assert [summary(deltas) for deltas in found] == [alone(p, SAMPLED) for p in prompts]
    assert all(deltas[-1].usage.cached_tokens >= len(shared) for deltas in found)
    assert engine.scheduler.stats().cached_tokens >= 3 * len(shared)


@pytest.mark.parametrize("kv_dtype", [None, torch.int8])
def test_prompts_that_come_together_read_what_they_share_once(kv_dtype):
    engine, single = tiny_engine(), tiny_engine()
    engine.model.kv_dtype = single.model.kv_dtype = kv_dtype
    engine.keep_sequences(CacheLimits(memory_bytes=10**8))
    engine.serve(4)
    passes = Passes(engine)
    passes.gate.clear()
    shared = list(b"you are a helpful assistant who answers from the documents. " * 6)
    prompts = [[*shared, *b"one"], [*shared, *b"another"], [*shared, *b"a third"], list(b"apart")]
    streams = [engine.generate(prompt, SAMPLED) for prompt in prompts]
    passes.gate.set()
    found = [list(stream) for stream in streams]
    expected = [summary(list(single.generate(prompt, SAMPLED))) for prompt in prompts]
    assert [summary(deltas) for deltas in found] == expected
    cached = [deltas[-1].usage.cached_tokens for deltas in found]
    assert cached == [0, len(shared), len(shared) + len(b"a"), 0]
    assert engine.scheduler.stats().prompt_tokens == sum(map(len, prompts)) - sum(cached)
    engine.serve(None)


def test_finished_sequences_are_saved_and_closed_ones_are_kept(engine, tmp_path):
    engine.keep_sequences(CacheLimits(10**8, 10**8, tmp_path))
    engine.serve(2)
    list(engine.generate(PROMPTS[2], GREEDY))
    assert len(list(tmp_path.glob("*/*"))) == 1
    broken = engine.generate(list(b"broken off" * 20), GREEDY)
    next(broken)
    broken.close()
    wait_until(lambda: engine.scheduler.num_running == 0)
    again = list(engine.generate(list(b"broken off" * 20), GREEDY))
    assert again[-1].usage.cached_tokens == 199
    assert len(list(tmp_path.glob("*/*"))) == 2


def test_nobody_waits_while_a_long_sequence_is_written_to_its_file(engine, tmp_path, monkeypatch):
    engine.keep_sequences(CacheLimits(10**8, 10**8, tmp_path))
    engine.serve(2)
    writing, written = threading.Event(), threading.Event()
    save = prefix_files.save_cache

    def slow(*args, **options):
        writing.set()
        written.wait(20)
        return save(*args, **options)

    monkeypatch.setattr(prefix_files, "save_cache", slow)
    reader = threading.Thread(target=list, args=(engine.generate(PROMPTS[2], GREEDY),))
    reader.start()
    assert writing.wait(5)
    meanwhile = reading(engine.generate(PROMPTS[0], GREEDY))
    written.set()
    reader.join()
    assert summary(meanwhile) == alone(PROMPTS[0], GREEDY)
    assert len(list(tmp_path.glob("*/*"))) == 1


# ---------------------------------------------------------------- a trained model


@pytest.mark.slow
def test_eight_threads_get_the_texts_of_single_runs_from_a_trained_model(smollm2):
    trained = Engine.load(smollm2)
    questions = ["What is gravity?", "Why do cats purr?", "Name three rivers.", "Tell a joke."]
    prompts = [trained.tokenizer.encode_chat([ChatTurn("user", q)]) for q in questions] * 2
    params = [replace(GREEDY, max_tokens=24)] * 4 + [replace(SAMPLED, max_tokens=24)] * 4
    expected = [
        summary(list(trained.generate(p, one))) for p, one in zip(prompts, params, strict=True)
    ]
    trained.serve(8)
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(trained.generate, prompts, params)
        found = list(threads.map(lambda stream: summary(list(stream)), answers))
    assert found == expected
    assert trained.scheduler.stats().finished["length"] <= 8
