"""What fails while answers decode together ends what it belongs to, and nothing is left behind."""

from __future__ import annotations

import gc
import os
import threading
import warnings
import weakref
from dataclasses import replace

import pytest
import torch
from together import GREEDY, PROMPTS, Passes, alone, ended_with, reading, summary, wait_until

from glm_rag.engine import batch as batch_module
from glm_rag.engine.scheduler import Scheduler
from glm_rag.errors import ConfigError, GenerationError
from tiny_checkpoints import tiny_engine


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
