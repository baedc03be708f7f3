"""Breaking off what another thread reads: whenever it is asked for, nothing goes on."""

import gc
import threading
import time
import weakref

import pytest

from fakes import ScriptedEngine, tiny_engine
from glm_rag.breaker import Breaker, on_break
from glm_rag.chat_models import ChatGLM2
from glm_rag.llms import ChatGLM2LLM


def test_what_runs_inside_is_ended_and_what_runs_outside_is_not():
    breaker, ended = Breaker(), []
    on_break(lambda: ended.append("before"))
    with breaker.inside():
        on_break(lambda: ended.append("inside"))
        assert not breaker.is_broken
        breaker.break_off()
        assert (breaker.is_broken, ended) == (True, ["inside"])
    on_break(lambda: ended.append("after"))
    breaker.break_off()
    assert ended == ["inside"]


def test_what_is_over_is_not_kept_alive():
    class Model:
        def close(self):
            """End it."""

    breaker, model = Breaker(), Model()
    there = weakref.ref(model)
    with breaker.inside():
        on_break(model.close)
    del model
    gc.collect()
    assert there() is None


def test_what_begins_after_the_break_is_ended_at_once():
    breaker, ended = Breaker(), []
    breaker.break_off()
    with breaker.inside():
        on_break(lambda: ended.append("late"))
        assert ended == ["late"]


def test_each_thread_has_its_own():
    first, second, ended = Breaker(), Breaker(), []

    def work(breaker, name):
        with breaker.inside():
            barrier.wait(5)
            on_break(lambda: ended.append(name))
            barrier.wait(5)
            barrier.wait(5)

    barrier = threading.Barrier(3)
    works = [
        threading.Thread(target=work, args=pair) for pair in ((first, "first"), (second, "second"))
    ]
    for thread in works:
        thread.start()
    barrier.wait(5)
    barrier.wait(5)  # each has told its own
    second.break_off()
    barrier.wait(5)
    for thread in works:
        thread.join(5)
    assert ended == ["second"]


@pytest.mark.parametrize("model", [ChatGLM2, ChatGLM2LLM])
def test_a_models_answer_is_ended_by_another_thread_before_its_first_token(model):
    engine = tiny_engine(seq_length=32_000)
    engine.model.encoder.layers[0].register_forward_hook(lambda *_args: time.sleep(0.01))
    llm, breaker, came = model(engine=engine, max_tokens=16, max_running=1), Breaker(), []

    def read():
        with breaker.inside(), pytest.raises(ValueError, match="No generation chunks"):
            came.extend(llm.stream("Sushi is free. " * 1066))

    reader = threading.Thread(target=read)
    reader.start()
    while engine.scheduler is None or not engine.scheduler.stats().prompt_tokens:
        time.sleep(0.005)
    breaker.break_off()
    reader.join(5)
    assert not reader.is_alive()
    while engine.scheduler.num_running:
        time.sleep(0.005)
    assert came == []
    assert engine.scheduler.stats().prompt_tokens < 12_000


def test_an_answer_that_its_reader_computes_is_left_to_its_reader():
    breaker = Breaker()
    llm = ChatGLM2(engine=ScriptedEngine(["Hello there."]))
    with breaker.inside():
        stream = llm.stream("hello")
        next(stream)
        breaker.break_off()  # closing a generator that another thread computes would raise
        assert "".join(chunk.text for chunk in stream)
