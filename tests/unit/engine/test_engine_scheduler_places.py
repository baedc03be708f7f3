"""Places and memory for answers that decode together: who waits, who leaves, who never fits."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from together import GREEDY, PROMPTS, Passes, alone, summary, wait_until

from glm_rag.engine import batch as batch_module
from glm_rag.engine import memory
from glm_rag.errors import ConfigError, ContextWindowError, ModelError
from tiny_checkpoints import TINY


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
    passes = Passes(engine, seconds=0.005)
    engine.serve(1)
    long = replace(GREEDY, max_tokens=900)
    running, waiting, last = (engine.generate(prompt, long) for prompt in PROMPTS)
    next(running)
    assert (engine.scheduler.num_running, engine.scheduler.num_waiting) == (1, 2)
    with ThreadPoolExecutor(1) as threads:
        blocked = threads.submit(list, waiting)
        time.sleep(0.02)
        waiting.close()  # while the other thread waits for its next delta
        assert blocked.result(30) == []
    assert engine.scheduler.num_waiting == 1
    num_passes = len(passes.rows)
    running.close()
    next(last)
    assert len(passes.rows) - num_passes < 50  # the answer that was closed had 900 to go
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
