"""The completion model: a raw prompt goes on, under the same laws as the chat model."""

from __future__ import annotations

import asyncio
import time

import pytest
from langchain_core.outputs import GenerationChunk

from fakes import ScriptedEngine, tiny_engine
from glm_rag.errors import ConfigError
from glm_rag.llms import ChatGLM2LLM


@pytest.fixture(scope="module")
def engine():
    return tiny_engine()


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 1.5, "seed": 7}])
async def test_stream_equals_invoke(engine, settings):
    llm = ChatGLM2LLM(engine=engine, max_tokens=24, **settings)
    text = llm.invoke("def f(")
    assert text
    assert "".join(llm.stream("def f(")) == text
    assert "".join([piece async for piece in llm.astream("def f(")]) == text
    assert await llm.ainvoke("def f(") == text
    assert llm.batch(["def f("]) == [text]


def test_the_prompt_is_raw_text():
    engine = ScriptedEngine(["a"])
    ChatGLM2LLM(engine=engine).invoke("def f(")
    assert engine.prompts == [engine.tokenizer.encode_prompt("def f(")]


@pytest.mark.parametrize("how", ["constructor", "call", "bound"])
def test_stop_strings_are_honoured(how):
    engine = ScriptedEngine(["red, green, blue"])
    llm = ChatGLM2LLM(engine=engine, stop=["green"] if how == "constructor" else None)
    if how == "bound":
        llm = llm.bind(stop=["green"])
    arguments = {"stop": ["green"]} if how == "call" else {}
    assert llm.invoke("?", **arguments) == "red, "


def test_counts_stand_on_the_last_chunk(engine):
    llm = ChatGLM2LLM(engine=engine, max_tokens=5, temperature=0)
    *chunks, last = llm._stream("hello")
    assert all(chunk.generation_info is None for chunk in chunks)
    assert isinstance(last, GenerationChunk)
    assert last.generation_info["finish_reason"] == "length"
    assert last.generation_info["usage"]["input_tokens"] == llm.get_num_tokens("hello") == 5
    assert last.generation_info["usage"]["output_tokens"] == 5


def test_closing_a_stream_stops_the_engine():
    engine = ScriptedEngine(["word " * 50])
    stream = ChatGLM2LLM(engine=engine).stream("?")
    next(stream)
    stream.close()
    assert engine.closed == 1


async def test_cancelling_stops_the_engine():
    engine = ScriptedEngine(["x" * 500])
    produced = []
    stream = engine._stream

    def slowly(*args):
        for delta in stream(*args):
            produced.append(delta)
            time.sleep(0.02)
            yield delta

    engine._stream = slowly
    task = asyncio.create_task(ChatGLM2LLM(engine=engine, max_tokens=900).ainvoke("hello"))
    while not produced:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while not engine.closed:
        await asyncio.sleep(0.01)
    assert len(produced) < 400


def test_unknown_settings_and_arguments_are_refused():
    with pytest.raises(ConfigError, match="did you mean `temperature`"):
        ChatGLM2LLM(temprature=0)
    with pytest.raises(ConfigError, match="did you mean `top_k`"):
        ChatGLM2LLM(engine=ScriptedEngine(["a"])).invoke("?", topk=1)
