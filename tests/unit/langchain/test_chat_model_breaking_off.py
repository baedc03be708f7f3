"""Who leaves an answer stops the model, frees its memory and gives up its place."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from fakes import ScriptedEngine, tiny_engine
from glm_rag.chat_models import ChatGLM2
from glm_rag.engine.cache import KVCache
from glm_rag.llms import ChatGLM2LLM


class Cache:
    """What a generation holds on to."""


class SlowEngine(ScriptedEngine):
    """Takes ten seconds for 500 tokens; knows how many it made and what they hold."""

    def __init__(self):
        super().__init__(["x" * 500])
        self.num_tokens = 0
        self.cache = None

    def _stream(self, prompt, reply, params):
        cache = Cache()
        self.cache = weakref.ref(cache)
        for delta in super()._stream(prompt, reply, params):
            self.num_tokens += 1
            time.sleep(0.02)
            yield delta

    async def wait_until_closed(self):
        while self.cache() is not None:
            await asyncio.sleep(0.01)


@pytest.fixture
def caches(monkeypatch):
    """Weak references to every cache that a generation makes."""
    made = []
    create = KVCache.__init__

    def remember(self, *args, **kwargs):
        made.append(weakref.ref(self))
        create(self, *args, **kwargs)

    monkeypatch.setattr(KVCache, "__init__", remember)
    return made


def alive(caches) -> int:
    gc.collect()
    return sum(ref() is not None for ref in caches)


def test_closing_a_stream_frees_its_memory(engine, caches):
    llm = ChatGLM2(engine=engine, max_tokens=900)
    stream = llm.stream("hello")
    next(stream)
    assert alive(caches) == 1
    stream.close()
    assert alive(caches) == 0


def test_leaving_a_loop_over_a_stream_frees_its_memory(engine, caches):
    llm = ChatGLM2(engine=engine, max_tokens=900)
    for _chunk in llm.stream("hello"):
        break
    assert len(caches) == 1
    assert alive(caches) == 0


def test_an_error_in_the_consumer_frees_the_memory_while_it_is_handled(engine, caches):
    llm = ChatGLM2(engine=engine, max_tokens=900)
    stream = llm.stream("hello")
    next(stream)
    try:
        stream.throw(ValueError("consumer failed"))
    except ValueError:
        assert alive(caches) == 0


@pytest.mark.parametrize("how", ["astream", "ainvoke", "abatch"])
async def test_cancelling_stops_the_generation_and_frees_its_memory(how):
    engine = SlowEngine()
    llm = ChatGLM2(engine=engine, max_tokens=900)

    async def consume():
        if how == "astream":
            async for _chunk in llm.astream("hello"):
                pass
        elif how == "ainvoke":
            await llm.ainvoke("hello")
        else:
            await llm.abatch(["hello"])

    task = asyncio.create_task(consume())
    while not engine.num_tokens:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(engine.wait_until_closed(), timeout=60)
    assert engine.num_tokens < 400
    assert engine.cache() is None


@pytest.mark.parametrize("model", [ChatGLM2, ChatGLM2LLM])
async def test_cancelling_a_call_that_waits_for_its_place_gives_the_place_up(model):
    engine = tiny_engine()
    engine.model.encoder.layers[0].register_forward_hook(lambda *args: time.sleep(0.01))
    llm = model(engine=engine, max_tokens=900, max_running=1, loop_guard=False)
    running, waiting = (asyncio.create_task(llm.ainvoke(text)) for text in ("one", "two"))
    while engine.scheduler is None or engine.scheduler.num_waiting != 1:
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(30):  # a thread may have had it in its hands
        while engine.scheduler.num_waiting:
            await asyncio.sleep(0.001)
    assert engine.scheduler.num_running == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    while engine.scheduler.num_running:
        await asyncio.sleep(0.01)


async def test_answers_that_wait_for_a_place_hold_up_no_reader_of_one_that_runs():
    """Also where the event loop has fewer threads than there are answers."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    engine = tiny_engine()
    llm = ChatGLM2(engine=engine, temperature=0, max_tokens=900, max_running=1)
    passes, gate = [], threading.Event()

    def hook(*args):
        passes.append(1)
        if len(passes) > 30:
            gate.wait(60)

    engine.model.encoder.layers[0].register_forward_hook(hook)
    running, waiting = llm.astream("first"), llm.astream("second")
    await anext(running)
    second = asyncio.create_task(anext(waiting))
    try:
        while not engine.scheduler.num_waiting:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(anext(running), 30)
    finally:
        gate.set()
        await running.aclose()
        await second
        await waiting.aclose()


async def test_calls_at_the_same_time_decode_together_and_say_what_they_say_alone():
    alone = ChatGLM2(engine=tiny_engine(), max_tokens=30, temperature=0)
    engine = tiny_engine()
    rows = []

    def wait_for_all(module, args, output):
        while len(rows) == 0 and engine.scheduler.num_running + engine.scheduler.num_waiting < 3:
            time.sleep(0.001)
        rows.append(len(args[2]))

    engine.model.encoder.layers[0].register_forward_hook(wait_for_all)
    llm = ChatGLM2(engine=engine, max_tokens=30, temperature=0, max_running=3)
    texts = ["hello", "how are you?", "a third"]
    answers = await asyncio.gather(*(llm.ainvoke(text) for text in texts))
    assert [answer.text for answer in answers] == [alone.invoke(text).text for text in texts]
    assert max(rows) == 3
