"""`batch` and `abatch`: one computation, single calls for everything that LangChain sees."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser

from fakes import tiny_engine
from glm_rag.chat_models import ChatGLM2
from glm_rag.errors import ConfigError, ContextWindowError, GenerationError
from glm_rag.llms import ChatGLM2LLM

INPUTS = ["hello", "a somewhat longer question, is it not?", "x", "and you?"]
TOO_LONG = "x" * 2000


class Counts:
    """What the engine computed: most sequences of a pass, and the answers that ran alone."""

    def __init__(self, engine) -> None:
        self.most, self.singles = 0, 0
        read, generate = engine.model.read_together, engine.generate

        def counted(ids, shares, **options):
            self.most = max(self.most, len(shares))
            return read(ids, shares, **options)

        def single(*args, **options):
            self.singles += 1
            return generate(*args, **options)

        engine.model.read_together, engine.generate = counted, single


@pytest.fixture
def engine():
    return tiny_engine()


@pytest.fixture
def counts(engine):
    return Counts(engine)


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
async def test_a_batch_gives_the_single_answers_in_one_computation(llm, counts, how, settings):
    expected = [without_id(llm.invoke(one, **settings)) for one in INPUTS]
    counts.singles = 0
    answers = await run(how, llm, INPUTS, **settings)
    assert [without_id(answer) for answer in answers] == expected
    assert counts.most > 1
    assert counts.singles == 0


@BOTH
@pytest.mark.parametrize(("most", "size", "together"), [(2, 8, 2), (None, 3, 3), (3, 2, 2)])
async def test_concurrency_and_batch_size_bound_a_batch(engine, counts, how, most, size, together):
    llm = ChatGLM2(engine=engine, max_tokens=50, temperature=0, batch_size=size)
    assert len(await run(how, llm, INPUTS, {"max_concurrency": most})) == 4
    assert counts.most == together


@BOTH
async def test_no_concurrency_means_single_calls(llm, counts, how):
    await run(how, llm, INPUTS, {"max_concurrency": 1})
    assert (counts.most, counts.singles) == (1, 4)


@BOTH
async def test_more_calls_than_the_event_loop_has_threads_do_not_wait_for_ever(engine, how):
    llm = ChatGLM2(engine=engine, max_tokens=2, temperature=0, batch_size=50)
    assert len(await asyncio.wait_for(run(how, llm, ["hi"] * 50), 60)) == 50


# ---------------------------------------------------------------- errors


@BOTH
async def test_an_error_of_one_call_is_returned_in_its_place(llm, engine, how):
    inputs = [INPUTS[0], TOO_LONG, INPUTS[2]]
    first, error, last = await run(how, llm, inputs, return_exceptions=True)
    assert isinstance(error, ContextWindowError)
    assert (first.text, last.text) == (llm.invoke(INPUTS[0]).text, llm.invoke(INPUTS[2]).text)


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
    assert len(answers) == 4


@BOTH
async def test_a_chain_batches_its_model(llm, counts, how):
    chain = llm | StrOutputParser()
    expected = [llm.invoke(one).text for one in INPUTS]
    counts.most = 0
    assert await run(how, chain, INPUTS) == expected
    assert counts.most > 1


@BOTH
async def test_a_call_inside_a_callback_does_not_wait_for_the_batch(engine, how):
    llm = ChatGLM2(engine=engine, max_tokens=12, temperature=0, batch_size=2)

    class Asks(BaseCallbackHandler):
        def __init__(self):
            self.asked = 0

        def on_llm_new_token(self, *args, **kwargs):
            if not self.asked:
                self.asked = 1
                llm.invoke("again")

    callbacks = [Asks() for _ in INPUTS]
    configs = [{"callbacks": [one]} for one in callbacks]
    answers = await asyncio.wait_for(run(how, llm, INPUTS, configs), 60)
    assert [answer.text for answer in answers] == [llm.invoke(one).text for one in INPUTS]
    assert all(one.asked for one in callbacks)


# ---------------------------------------------------------------- breaking off


async def test_cancelling_a_batch_stops_the_model(engine):
    passes = []

    def slow(*args):
        passes.append(len(passes))
        time.sleep(0.01)

    engine.model.encoder.layers[0].register_forward_hook(slow)
    llm = ChatGLM2(engine=engine, max_tokens=900, loop_guard=False)
    task = asyncio.create_task(llm.abatch(INPUTS))
    while len(passes) < 8:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    known = 0
    while known < len(passes):
        known = len(passes)
        await asyncio.sleep(0.2)
    assert known < 400  # each answer has 900 to go


def test_no_thread_is_left_behind(llm):
    before = threading.active_count()
    llm.batch(INPUTS)
    for _ in range(3000):
        if threading.active_count() <= before:
            break
        time.sleep(0.01)
    assert threading.active_count() <= before


# ---------------------------------------------------------------- raw prompts


def test_a_completion_model_batches_too(engine, counts):
    llm = ChatGLM2LLM(engine=engine, max_tokens=12, temperature=0)
    expected = [llm.invoke(one) for one in INPUTS]
    assert llm.batch(INPUTS) == expected
    assert counts.most == 4
    result = llm.generate(INPUTS)
    assert [row[0].text for row in result.generations] == expected
    assert result.generations[0][0].generation_info["finish_reason"] == "length"
