"""Answers that decode together: each is what it gives alone, whoever comes and goes."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from glm_rag.engine import batch as batch_module
from glm_rag.engine import memory, prefix_files
from glm_rag.engine.engine import Engine
from glm_rag.engine.scheduler import Scheduler
from glm_rag.errors import ConfigError, ContextWindowError, GenerationError, ModelError
from glm_rag.types import CacheLimits, ChatTurn, SamplingParams
from tiny_checkpoints import TINY, tiny_engine

GREEDY = SamplingParams(max_tokens=40, temperature=0, loop_guard=False)
SAMPLED = replace(GREEDY, temperature=1.3, seed=7)
PROMPTS = [list(b"The quick brown fox"), list(b"x"), list(b"jumps over the lazy dog. " * 12)]


@pytest.fixture
def engine():
    engine = tiny_engine()
    yield engine
    engine.serve(None)


def alone(prompt, params, **shape):
    return summary(list(tiny_engine(**shape).generate(prompt, params)))


def summary(deltas):
    ids = [i for delta in deltas for i in delta.token_ids]
    return ids, "".join(d.text for d in deltas), deltas[-1].finish_reason


def wait_until(holds, seconds=5.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def ended_with(child, seconds=20.0):
    """Exit status of a process; it is killed where it does not end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def reading(stream):
    """The deltas, or what ended them; fails where neither comes."""
    came = []

    def read():
        try:
            came.append(list(stream))
        except Exception as error:  # noqa: BLE001 - handed on
            came.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    stream.close()  # lets the thread go in any case
    assert came, "the reader waits for ever"
    return came[0]


class Passes:
    """Watches the first layer: what each pass computes, and slows it down."""

    def __init__(self, engine, seconds=0.0):
        self.rows = []
        self.gate = threading.Event()
        self.gate.set()

        def hook(*args):
            self.gate.wait(10)
            time.sleep(seconds)
            self.rows.append(args[2].shape[1])

        engine.model.encoder.layers[0].register_forward_hook(hook)


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


# ---------------------------------------------------------------- places and memory


def test_who_comes_first_is_served_first(engine, monkeypatch):
    begun = []
    start = batch_module.Batch._start

    def watched(self, engine, request):
        begun.append(request.prompt)
        return start(self, engine, request)

    monkeypatch.setattr(batch_module.Batch, "_start", watched)
    engine.serve(1)
    streams = [engine.generate(prompt, replace(GREEDY, max_tokens=3)) for prompt in PROMPTS]
    for stream in reversed(streams):
        list(stream)
    assert begun == PROMPTS
    assert engine.scheduler.stats().finished == {"length": 3}


def test_closing_from_another_thread_frees_the_place_of_running_and_waiting(engine):
    Passes(engine, seconds=0.005)
    engine.serve(1)
    long = replace(GREEDY, max_tokens=900)
    running, waiting, last = (engine.generate(prompt, long) for prompt in PROMPTS)
    next(running)
    assert (engine.scheduler.num_running, engine.scheduler.num_waiting) == (1, 2)
    with ThreadPoolExecutor(1) as threads:
        blocked = threads.submit(list, waiting)
        time.sleep(0.02)
        waiting.close()  # while the other thread waits for its next delta
        assert blocked.result(5) == []
    assert engine.scheduler.num_waiting == 1
    started = time.monotonic()
    running.close()
    next(last)
    assert time.monotonic() - started < 1
    last.close()
    wait_until(lambda: engine.scheduler.num_running == 0)
    assert list(running) == []
    assert engine.scheduler.stats().finished["closed"] == 2


def test_dropping_an_answer_in_any_thread_is_closing_it(engine):
    passes = Passes(engine)
    engine.serve(1)
    left = [engine.generate(PROMPTS[0], replace(GREEDY, max_tokens=900))]
    next(left[0])
    passes.gate.clear()
    dropping = threading.Thread(target=left.clear)
    dropping.start()
    dropping.join()
    passes.gate.set()
    wait_until(lambda: engine.scheduler.num_running == 0, 20)
    assert engine.scheduler.stats().finished == {"closed": 1}


@pytest.mark.parametrize("error", [ValueError("the reader failed"), ValueError])
def test_an_error_thrown_into_an_answer_closes_it(engine, error):
    engine.serve(1)
    answer = engine.generate(PROMPTS[0], replace(GREEDY, max_tokens=900))
    with pytest.raises(ValueError) as raised:
        answer.throw(error)
    assert str(raised.value) in ("", "the reader failed")
    assert list(answer) == []


def test_a_slow_reader_holds_up_nobody(engine):
    engine.serve(2)
    slow = engine.generate(PROMPTS[0], GREEDY)
    next(slow)
    assert len(list(engine.generate(PROMPTS[1], GREEDY))) > 40
    wait_until(lambda: engine.scheduler.num_running == 0)
    assert len(list(slow)) >= 40


def test_an_answer_that_is_not_read_to_its_end_holds_no_cache(engine):
    engine.serve(1)
    unread = engine.generate(PROMPTS[0], GREEDY)
    next(unread)
    [running] = engine.scheduler._batch._running.values()
    cache = weakref.ref(running.cache)
    del running
    wait_until(lambda: engine.scheduler.num_running == 0)
    gc.collect()
    assert cache() is None
    assert len(list(unread)) >= 39


def test_what_does_not_fit_beside_the_others_waits_and_lets_nobody_pass(engine, monkeypatch):
    Passes(engine, seconds=0.002)
    engine.serve(3)
    need = engine.cache_bytes(len(PROMPTS[2]) + 40)
    monkeypatch.setattr(batch_module, "available_bytes", lambda device: need)
    streams = [engine.generate(prompt, GREEDY) for prompt in (PROMPTS[0], PROMPTS[2], PROMPTS[1])]
    next(streams[0])
    assert (engine.scheduler.num_running, engine.scheduler.num_waiting) == (1, 2)
    found = [summary(list(stream)) for stream in streams[1:]]
    assert found == [alone(prompt, GREEDY) for prompt in (PROMPTS[2], PROMPTS[1])]


def test_what_can_never_fit_is_refused_at_once(engine, monkeypatch):
    engine.serve(2)
    with pytest.raises(ContextWindowError):
        engine.generate([1] * TINY.seq_length, GREEDY)
    with pytest.raises(ConfigError):
        engine.generate([], GREEDY)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    with pytest.raises(ModelError, match="KV cache"):
        engine.generate(PROMPTS[0], GREEDY)
    with pytest.raises(ConfigError, match="max_running"):
        engine.serve(0)


# ---------------------------------------------------------------- errors


def test_an_error_of_one_answer_is_no_error_of_the_others(engine):
    """The embedding of byte 1 is broken: only who reads it gets NaN."""
    with torch.no_grad():
        engine.model.embedding.word_embeddings.weight[1] = float("nan")
    engine.serve(4)
    params = [GREEDY, GREEDY, replace(GREEDY, seed=-1)]
    prompts = [PROMPTS[0], [5, 1, 6], PROMPTS[2]]
    streams = [engine.generate(p, one) for p, one in zip(prompts, params, strict=True)]
    assert summary(list(streams[0])) == alone(PROMPTS[0], GREEDY)
    with pytest.raises(GenerationError, match="NaN"):
        list(streams[1])
    with pytest.raises(ConfigError, match="seed"):
        list(streams[2])
    assert engine.scheduler.stats().finished == {"length": 1, "error": 2}


def test_an_error_of_a_step_ends_its_answers_and_the_next_ones_go_on(engine, monkeypatch):
    engine.serve(2)
    streams = [engine.generate(prompt, replace(GREEDY, max_tokens=900)) for prompt in PROMPTS[:2]]
    for stream in streams:
        next(stream)

    def fail(*args):
        raise RuntimeError("the device is gone\nin many lines")

    with monkeypatch.context() as patch:
        patch.setattr(engine.model.encoder.layers[1], "forward", fail)
        for stream in streams:
            with pytest.raises(GenerationError, match=r"the device is gone$"):
                list(stream)
    assert summary(list(engine.generate(PROMPTS[0], GREEDY))) == alone(PROMPTS[0], GREEDY)


def test_closing_the_scheduler_ends_running_and_waiting_answers(engine):
    Passes(engine, seconds=0.002)
    scheduler = Scheduler(engine, max_running=1)
    streams = [scheduler.stream(prompt, replace(GREEDY, max_tokens=900)) for prompt in PROMPTS]
    next(streams[0])
    scheduler.close()
    for ended in map(reading, streams):
        assert isinstance(ended, GenerationError)
        assert "stopped serving" in str(ended)
    with pytest.raises(GenerationError):
        scheduler.stream(PROMPTS[0], GREEDY)


def test_a_failing_scheduler_ends_running_and_waiting_answers(engine, monkeypatch):
    passes = Passes(engine)
    engine.serve(1)
    streams = [engine.generate(prompt, replace(GREEDY, max_tokens=900)) for prompt in PROMPTS]
    next(streams[0])
    passes.gate.clear()

    def fail(*args):
        raise MemoryError("no room for anything")

    with monkeypatch.context() as patch:
        patch.setattr(batch_module.Batch, "_admit", fail)
        passes.gate.set()
        assert all("no room" in str(ended) for ended in map(reading, streams))
    assert summary(list(engine.generate(PROMPTS[0], GREEDY))) == alone(PROMPTS[0], GREEDY)


def test_a_thread_that_cannot_start_ends_its_answer_and_no_later_one(engine, monkeypatch):
    engine.serve(1)

    def fail(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(GenerationError, match="can't start new thread"):
            engine.generate(PROMPTS[1], GREEDY)
    assert engine.scheduler.num_waiting == 0
    assert summary(reading(engine.generate(PROMPTS[0], GREEDY))) == alone(PROMPTS[0], GREEDY)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_computes_its_own_answers(engine):
    """The child has no computing thread, and the lock may be taken for ever."""
    passes = Passes(engine)
    engine.serve(1)
    running = engine.generate(PROMPTS[0], replace(GREEDY, max_tokens=900))
    next(running)
    expected = alone(PROMPTS[1], GREEDY)
    passes.gate.clear()
    with warnings.catch_warnings(), engine.scheduler._lock:
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)
            passes.gate = threading.Event()
            passes.gate.set()
            ended = reading(running)
            found = summary(reading(engine.generate(PROMPTS[1], GREEDY)))
            os._exit(0 if isinstance(ended, GenerationError) and found == expected else 1)
        finally:
            os._exit(2)
    passes.gate.set()
    running.close()
    assert ended_with(child) == 0


def test_no_thread_and_no_model_is_left_behind():
    before = threading.active_count()
    engine = tiny_engine()
    engine.serve(2)
    list(engine.generate(PROMPTS[0], GREEDY))
    wait_until(lambda: threading.active_count() <= before)
    left = engine.generate(PROMPTS[1], replace(GREEDY, max_tokens=900))
    next(left)
    gone = threading.Event()
    weakref.finalize(engine.model, gone.set)
    del engine, left
    wait_until(lambda: threading.active_count() <= before)
    gc.collect()
    assert gone.is_set()


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
