"""`batch` and `abatch`: one computation, single calls for everything that LangChain sees."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser

from fakes import ScriptedEngine, tiny_engine
from glm_rag.chat_models import ChatGLM2
from glm_rag.errors import ConfigError, ContextWindowError, GenerationError
from glm_rag.llms import ChatGLM2LLM

INPUTS = ["hello", "a somewhat longer question, is it not?", "x", "and you?"]
TOO_LONG = "x" * 2000


class CountingEngine:
    """A real engine that remembers its batches."""

    def __init__(self) -> None:
        self._engine = tiny_engine()
        self.batches: list[int] = []
        self.singles = 0

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def generate(self, *args, **options):
        self.singles += 1
        return self._engine.generate(*args, **options)

    def generate_batch(self, prompts, params, **options):
        self.batches.append(len(prompts))
        return self._engine.generate_batch(prompts, params, **options)


@pytest.fixture
def engine():
    return CountingEngine()


@pytest.fixture
def llm(engine):
    return ChatGLM2(engine=engine, max_tokens=12, temperature=0)


async def run(how: str, llm, inputs, *args, **options):
    if how == "batch":
        return await asyncio.to_thread(llm.batch, inputs, *args, **options)
    return await llm.abatch(inputs, *args, **options)


BOTH = pytest.mark.parametrize("how", ["batch", "abatch"])


def without_id(message):
    return message.model_copy(update={"id": None})


@BOTH
@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 1.5, "seed": 3}])
async def test_a_batch_gives_the_single_answers_in_one_computation(llm, engine, how, settings):
    expected = [without_id(llm.invoke(one, **settings)) for one in INPUTS]
    engine.singles = 0
    answers = await run(how, llm, INPUTS, **settings)
    assert [without_id(answer) for answer in answers] == expected
    assert (engine.batches, engine.singles) == ([4], 0)


@BOTH
@pytest.mark.parametrize(
    ("most", "size", "batches"), [(2, 8, [2, 2]), (None, 3, [3, 1]), (3, 2, [2, 2])]
)
async def test_concurrency_and_batch_size_bound_a_batch(engine, how, most, size, batches):
    llm = ChatGLM2(engine=engine, max_tokens=3, temperature=0, batch_size=size)
    assert len(await run(how, llm, INPUTS, {"max_concurrency": most})) == 4
    assert engine.batches == batches


@BOTH
async def test_no_concurrency_means_single_calls(llm, engine, how):
    await run(how, llm, INPUTS, {"max_concurrency": 1})
    assert (engine.batches, engine.singles) == ([], 4)


@BOTH
async def test_more_calls_than_the_event_loop_has_threads_do_not_wait_for_ever(how):
    engine = CountingEngine()
    llm = ChatGLM2(engine=engine, max_tokens=2, temperature=0, batch_size=50)
    assert len(await asyncio.wait_for(run(how, llm, ["hi"] * 50), 60)) == 50
    assert engine.batches == [50]


# ---------------------------------------------------------------- errors


@BOTH
async def test_an_error_of_one_call_is_returned_in_its_place(llm, engine, how):
    inputs = [INPUTS[0], TOO_LONG, INPUTS[2]]
    first, error, last = await run(how, llm, inputs, return_exceptions=True)
    assert isinstance(error, ContextWindowError)
    assert (first.text, last.text) == (llm.invoke(INPUTS[0]).text, llm.invoke(INPUTS[2]).text)
    assert engine.batches == [2]


@BOTH
async def test_an_error_of_one_call_is_raised_unless_asked_to_be_returned(llm, how):
    with pytest.raises(ContextWindowError):
        await run(how, llm, [*INPUTS, TOO_LONG])


@BOTH
async def test_a_wrong_argument_is_an_error_of_every_call(llm, how):
    with pytest.raises(ConfigError):
        await run(how, llm, INPUTS, temprature=0)
    errors = await run(how, llm, INPUTS, temprature=0, return_exceptions=True)
    assert all(isinstance(error, ConfigError) for error in errors)


@BOTH
async def test_broken_weights_fail_every_call(llm, engine, how):
    engine.model.encoder.final_layernorm.weight.data[0] = float("nan")
    errors = await run(how, llm, INPUTS, return_exceptions=True)
    assert [type(error) for error in errors] == [GenerationError] * 4


# ---------------------------------------------------------------- callbacks and caches


class Seen(BaseCallbackHandler):
    def __init__(self):
        self.started, self.ended, self.failed, self.text = 0, 0, 0, ""

    def on_chat_model_start(self, *args, **kwargs):
        self.started += 1

    def on_llm_new_token(self, token, **kwargs):
        self.text += token

    def on_llm_end(self, *args, **kwargs):
        self.ended += 1

    def on_llm_error(self, *args, **kwargs):
        self.failed += 1


@BOTH
async def test_each_call_has_its_own_callbacks(llm, how):
    seen = [Seen() for _ in INPUTS]
    answers = await run(how, llm, INPUTS, [{"callbacks": [one]} for one in seen])
    assert [one.text for one in seen] == [answer.text for answer in answers]
    assert [(one.started, one.ended, one.failed) for one in seen] == [(1, 1, 0)] * 4


@BOTH
async def test_a_failed_call_tells_its_own_callbacks(llm, how):
    good, bad = Seen(), Seen()
    configs = [{"callbacks": [good]}, {"callbacks": [bad]}]
    await run(how, llm, ["hi", TOO_LONG], configs, return_exceptions=True)
    assert (good.ended, good.failed, bad.ended, bad.failed) == (1, 0, 0, 1)


async def test_asynchronous_callbacks_see_every_token(llm):
    class Tokens(AsyncCallbackHandler):
        text = ""

        async def on_llm_new_token(self, token, **kwargs):
            self.text += token

    tokens = [Tokens() for _ in INPUTS]
    answers = await llm.abatch(INPUTS, [{"callbacks": [one]} for one in tokens])
    assert [one.text for one in tokens] == [answer.text for answer in answers]


@BOTH
async def test_known_answers_come_from_the_cache_and_nobody_waits_for_them(engine, how):
    llm = ChatGLM2(engine=engine, max_tokens=5, temperature=0, cache=InMemoryCache())
    known = llm.invoke(INPUTS[0]).text
    answers = await run(how, llm, INPUTS)
    assert answers[0].text == known
    assert engine.batches == [3]


@BOTH
async def test_a_chain_batches_its_model(llm, engine, how):
    chain = llm | StrOutputParser()
    assert await run(how, chain, INPUTS) == [llm.invoke(one).text for one in INPUTS]
    assert engine.batches == [4]


def test_a_call_inside_a_callback_is_a_call_of_its_own(llm, engine):
    class Asks(BaseCallbackHandler):
        def on_llm_end(self, *args, **kwargs):
            llm.invoke("again")

    answers = llm.batch(INPUTS, {"callbacks": [Asks()]})
    assert len(answers) == 4
    assert engine.batches == [4]


# ---------------------------------------------------------------- breaking off


async def test_cancelling_a_batch_stops_the_model():
    class Slow(ScriptedEngine):
        num_made = 0

        def _stream(self, prompt, reply, params):
            for delta in super()._stream(prompt, reply, params):
                self.num_made += 1
                time.sleep(0.01)
                yield delta

    engine = Slow(["the end is far away, " + "abcdefghijklmnopqrstuvwxyz0123456789" * 9])
    llm = ChatGLM2(engine=engine, max_tokens=500, loop_guard=False)
    task = asyncio.create_task(llm.abatch(INPUTS))
    while engine.num_made < 8:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(300):
        if engine.closed == 4:
            break
        await asyncio.sleep(0.01)
    assert engine.closed == 4


def test_no_thread_is_left_behind(llm):
    before = threading.active_count()
    llm.batch(INPUTS)
    assert threading.active_count() <= before


# ---------------------------------------------------------------- raw prompts


def test_a_completion_model_batches_too(engine):
    llm = ChatGLM2LLM(engine=engine, max_tokens=12, temperature=0)
    expected = [llm.invoke(one) for one in INPUTS]
    assert llm.batch(INPUTS) == expected
    assert engine.batches == [4]
    result = llm.generate(INPUTS)
    assert [row[0].text for row in result.generations] == expected
    assert result.generations[0][0].generation_info["finish_reason"] == "length"
