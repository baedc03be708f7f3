"""Laws of the chat model that LangChain's standard suite does not prove."""

from __future__ import annotations

import sys

import pytest
import torch
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGenerationChunk

from fakes import ScriptedEngine, tiny_engine
from glm_rag.chat_models import ChatGLM2
from glm_rag.errors import ConfigError, ContextWindowError, ModelNotFoundError
from glm_rag.types import CacheLimits


@pytest.fixture
def tiny(engine):
    return ChatGLM2(engine=engine, max_tokens=24, temperature=0)


def scripted(*replies: str, **settings) -> tuple[ChatGLM2, ScriptedEngine]:
    engine = ScriptedEngine(list(replies))
    return ChatGLM2(engine=engine, max_tokens=500, **settings), engine


# ---------------------------------------------------------------- stop strings


@pytest.mark.parametrize("how", ["constructor", "call", "bound", "keyword of stream"])
def test_stop_strings_are_honoured_and_never_part_of_the_answer(how):
    stop = ["green leaves", "zzz"]
    llm, _ = scripted("red, green, green leaves, blue", stop=stop if how == "constructor" else None)
    if how == "bound":
        llm = llm.bind(stop=stop)
    arguments = {"stop": stop} if how in {"call", "keyword of stream"} else {}
    if how == "keyword of stream":
        text = "".join(chunk.text for chunk in llm.stream("colours?", **arguments))
    else:
        text = llm.invoke("colours?", **arguments).text
    assert text == "red, green, "


def test_stop_strings_of_constructor_and_call_add_up():
    llm, engine = scripted("a", stop=["x"])
    llm.invoke("?", stop=["y", "x"])
    assert engine.params[0].stop == ("x", "y")


def test_a_stop_string_across_token_borders_is_honoured(tiny):
    # One byte is one token here, so every longer stop string crosses borders.
    free = tiny.invoke("hello").text
    stop = free[4:8]
    assert tiny.invoke("hello", stop=[stop]).text == free[: free.index(stop)]


# ---------------------------------------------------------------- token counts


def test_token_counts_are_true(tiny, engine):
    messages = [SystemMessage("be brief"), HumanMessage("你好")]
    answer = tiny.invoke(messages)
    usage = answer.usage_metadata
    assert usage["input_tokens"] == tiny.get_num_tokens_from_messages(messages)
    assert usage["output_tokens"] == len(answer.additional_kwargs["token_ids"]) == 24
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_token_details"]["cache_read"] == 0
    assert tiny.get_num_tokens("你好") == tiny.count_tokens("你好") == 6
    assert tiny.get_token_ids("你好") == engine.tokenizer.encode("你好")


def test_counts_stand_once_in_a_stream(tiny):
    chunks = list(tiny.stream("hello"))
    assert [c.usage_metadata for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    joined = chunks[0]
    for chunk in chunks[1:]:
        joined += chunk
    invoked = tiny.invoke("hello")
    assert joined.usage_metadata == invoked.usage_metadata
    assert joined.response_metadata == invoked.response_metadata
    assert joined.additional_kwargs == invoked.additional_kwargs
    assert invoked.response_metadata["finish_reason"] == "length"
    assert invoked.response_metadata["model_name"] == "tiny"


# ---------------------------------------------------------------- stream equals invoke


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 1.5, "seed": 7}])
async def test_stream_equals_invoke(engine, settings):
    llm = ChatGLM2(engine=engine, max_tokens=24, **settings)
    answer = llm.invoke("hello")
    assert answer.text
    assert "".join(chunk.text for chunk in llm.stream("hello")) == answer.text
    assert "".join([chunk.text async for chunk in llm.astream("hello")]) == answer.text
    assert (await llm.ainvoke("hello")).text == answer.text


def test_another_seed_gives_another_answer(engine):
    llm = ChatGLM2(engine=engine, max_tokens=24, temperature=1.5, top_p=1.0)
    assert llm.invoke("hello", seed=1).text != llm.invoke("hello", seed=2).text


# ---------------------------------------------------------------- conversations


def test_an_answer_passed_back_continues_the_same_ids(tiny, engine):
    question = HumanMessage("hello")
    answer = tiny.invoke([question])
    (prompt, follow_up) = _prompts(
        engine, tiny, [question], [question, answer, HumanMessage("and?")]
    )
    assert follow_up[: len(prompt) + 24] == prompt + answer.additional_kwargs["token_ids"]


def test_ids_of_an_edited_answer_are_not_used(tiny, engine):
    ids = engine.tokenizer.encode("yes")
    kept = AIMessage("yes", additional_kwargs={"token_ids": ids})
    edited = AIMessage("no", additional_kwargs={"token_ids": ids})
    for message in (kept, edited):
        (prompt,) = _prompts(engine, tiny, [HumanMessage("a"), message, HumanMessage("b")])
        assert message.text in engine.tokenizer.decode(prompt)


def _prompts(engine, llm, *conversations):
    prompts = []
    generate = engine.generate

    class Spy:
        name, tokenizer, context_window = engine.name, engine.tokenizer, engine.context_window

        def generate(self, prompt_ids, params):
            prompts.append(list(prompt_ids))
            return generate(prompt_ids, params)

    spying = llm.model_copy(update={"engine": Spy()})
    for conversation in conversations:
        spying.invoke(conversation, max_tokens=1)
    return prompts


# ---------------------------------------------------------------- settings


def test_construction_loads_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "glm_rag.models.loading", None)
    llm = ChatGLM2(model="chatglm2-6b-32k", temperature=0)
    assert llm.bind(stop=["x"])
    assert "engine" not in llm.model_dump()


def test_every_call_can_change_the_sampling():
    llm, engine = scripted("a", temperature=0.5, seed=1)
    llm.invoke("?", temperature=0, max_tokens=3, top_k=1, top_p=0.5, repetition_penalty=1.2, seed=2)
    llm.invoke("?")
    changed, own = engine.params
    assert (changed.temperature, changed.max_tokens, changed.top_k) == (0, 3, 1)
    assert (changed.top_p, changed.repetition_penalty, changed.seed) == (0.5, 1.2, 2)
    assert (own.temperature, own.max_tokens, own.seed) == (0.5, 500, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temprature": 0}, "did you mean `temperature`"),
        ({"temperature": -1}, "temperature must be 0 or more"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"dtype": "float8"}, "dtype"),
        ({"threads": 0}, "threads"),
        ({"stop": [""]}, "stop strings must not be empty"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ChatGLM2(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temprature": 0}, "did you mean `temperature`"),
        ({"top_p": 3}, "top_p must be in"),
        ({"max_tokens": "many"}, "wrong type"),
        ({"tools": []}, "cannot call tools"),
        ({"response_format": {}}, "cannot call tools"),
        ({"model": "another"}, "an engine was passed in"),
    ],
)
def test_a_wrong_argument_of_a_call_is_one_clear_error(arguments, message):
    llm, engine = scripted("a")
    with pytest.raises(ConfigError, match=message):
        llm.invoke("?", **arguments)
    assert engine.prompts == []


def test_an_absent_model_says_how_to_get_it():
    with pytest.raises(ModelNotFoundError, match="glm-rag model pull smollm2-135m"):
        ChatGLM2().invoke("hello")


def test_a_prompt_longer_than_the_window_is_refused(tiny):
    with pytest.raises(ContextWindowError):
        tiny.invoke("x" * 2000)


def test_tools_and_schemas_are_refused_clearly(tiny):
    with pytest.raises(NotImplementedError, match="tool-calling"):
        tiny.bind_tools([])
    with pytest.raises(NotImplementedError, match="tool-calling"):
        tiny.with_structured_output({})
    with pytest.raises(NotImplementedError, match="tool-calling"):
        tiny.get_num_tokens_from_messages([HumanMessage("a")], tools=[{}])


def test_the_cache_key_holds_everything_that_changes_the_answer(tiny):
    other = tiny.model_copy(update={"repetition_penalty": 1.3})
    assert tiny._get_llm_string() != other._get_llm_string()


def test_callbacks_see_every_piece_once(tiny):
    from langchain_core.callbacks import BaseCallbackHandler

    class Seen(BaseCallbackHandler):
        def __init__(self):
            self.tokens, self.chunks = [], []

        def on_llm_new_token(self, token, *, chunk=None, **kwargs):
            self.tokens.append(token)
            self.chunks.append(chunk)

    for call in (tiny.invoke, lambda *args, **kwargs: list(tiny.stream(*args, **kwargs))):
        seen = Seen()
        call("hello", config={"callbacks": [seen]})
        assert "".join(seen.tokens) == tiny.invoke("hello").text
        assert all(isinstance(chunk, ChatGenerationChunk) for chunk in seen.chunks)


# ---------------------------------------------------------------- kept sequences


def test_the_same_conversation_and_one_more_turn_read_the_new_tokens_alone():
    engine = tiny_engine()
    engine.keep_sequences(CacheLimits(10**8))
    llm = ChatGLM2(engine=engine, max_tokens=24, temperature=0)
    messages = [SystemMessage("be brief"), HumanMessage("tell me " + "all " * 100)]
    first = llm.invoke(messages)
    second = llm.invoke([*messages, first, HumanMessage("and then?")])
    usage = first.usage_metadata
    cached = second.usage_metadata["input_token_details"]["cache_read"]
    assert cached >= usage["total_tokens"] - 1
    assert (
        second.text
        == ChatGLM2(engine=tiny_engine(), max_tokens=24, temperature=0)
        .invoke([*messages, first, HumanMessage("and then?")])
        .text
    )


def test_limits_of_kept_sequences_come_from_the_settings(home):
    from fakes import write_checkpoint

    folder = write_checkpoint(home / "models" / "tiny")
    llm = ChatGLM2(model=str(folder), home=home, prefix_cache={"memory_mb": 3, "disk_mb": 0})
    assert llm.open().store.limits == CacheLimits(3 * 10**6, 0, home / "cache")
    off = ChatGLM2(model=str(folder), home=home, prefix_cache={"enabled": False})
    assert off.open().store is None
    small = ChatGLM2(model=str(folder), home=home, kv_cache="int8")
    assert small.open().new_cache().dtype == torch.int8
    with pytest.raises(ConfigError, match="memory_mb"):
        ChatGLM2(prefix_cache={"memory_mb": -1})
