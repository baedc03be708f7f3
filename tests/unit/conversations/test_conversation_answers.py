"""An answer comes back from JSON as it was, and what other versions wrote can be read."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from glm_rag.assistant import Assistant
from glm_rag.chat_models import ChatGLM2
from glm_rag.conversations import answer_from_json, answer_to_json
from glm_rag.errors import ConfigError
from glm_rag.types import (
    Answer,
    ChatTurn,
    Citation,
    PackedContext,
    Passage,
    ScoredDocument,
    Unsupported,
    Usage,
    WindowReport,
)
from glm_rag.types.plain import to_plain

words = st.text(max_size=8)
numbers = st.integers(0, 10**9)
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
documents = st.builds(
    Document,
    id=st.none() | words,
    page_content=words,
    metadata=st.dictionaries(words, plain, max_size=3),
)
passages = st.builds(Passage, numbers, documents, words, numbers, st.booleans())
several = st.lists(passages, max_size=2).map(tuple)
turns = st.builds(
    ChatTurn,
    st.sampled_from(["user", "assistant"]),
    words,
    st.none() | st.lists(numbers, max_size=3).map(tuple),
    st.none() | words,
    several,
)
citations = st.builds(
    Citation, numbers, numbers, numbers, words, words, words, st.none() | numbers, numbers,
    numbers, words, st.sampled_from(["verbatim", "paraphrase"]),
)  # fmt: skip
answers = st.builds(
    Answer,
    text=words,
    citations=st.lists(citations, max_size=2).map(tuple),
    context=st.builds(PackedContext, several, numbers, numbers, numbers),
    usage=st.builds(Usage, numbers, numbers, numbers),
    timings=st.dictionaries(words, st.floats(0, 1e6), max_size=2),
    finish_reason=st.sampled_from(["stop", "length", "repetition"]),
    abstained=st.booleans(),
    question=words,
    reason=words,
    messages=st.lists(turns, max_size=3).map(tuple),
    nearest=st.lists(
        st.builds(ScoredDocument, documents, st.floats(-1, 1), words), max_size=1
    ).map(tuple),
    search_question=words,
    unsupported=st.lists(
        st.builds(Unsupported, numbers, numbers, st.sampled_from(["sentence", "number"])),
        max_size=2,
    ).map(tuple),
    trace=st.dictionaries(words, st.none() | words | numbers | st.floats(-9, 9), max_size=3),
    window=st.none()
    | st.builds(
        WindowReport, numbers, numbers, numbers, numbers,
        st.lists(numbers, max_size=3).map(tuple), numbers, numbers, numbers,
    ),
)  # fmt: skip
EMPTY = Answer("", (), PackedContext((), 0, 0, 0), Usage(0, 0), {}, "stop", abstained=False)


@given(answers)
def test_an_answer_comes_back_as_it_was(answer):
    text = answer_to_json(answer)
    assert answer_from_json(text) == answer
    assert "\n" not in text


def test_a_real_answer_and_a_follow_up_come_back_and_go_on_with_the_same_prompt():
    from langchain_core.runnables import RunnableLambda

    from fakes import ScriptedEngine

    text = "Parental leave lasts 26 weeks and is open to every parent."
    found = [Document(id="c", page_content=text, metadata={"source": "a", "start": 0})]

    def made():
        engine = ScriptedEngine(["Parental leave lasts 26 weeks."])
        return Assistant(RunnableLambda(lambda _: found), ChatGLM2(engine=engine)), engine

    assistant, _ = made()
    first = assistant.ask("How long is parental leave?")
    second = assistant.ask("And who may take it?", history=first)
    assert second.messages[0].prompt
    assert second.messages[1].token_ids
    for answer in (first, second):
        assert answer_from_json(answer_to_json(answer)) == answer
    (one, engine), (other, same) = made(), made()
    one.ask("Why is that?", history=second)
    other.ask("Why is that?", history=answer_from_json(answer_to_json(second)))
    assert engine.prompts == same.prompts


def test_the_output_for_programs_is_a_saved_answer_too():
    answer = dataclasses.replace(EMPTY, text="26 weeks.", messages=(ChatTurn("user", "How?"),))
    printed = json.dumps({**to_plain(answer), "supported": False})
    assert answer_from_json(printed) == answer


@given(answers, st.data())
def test_keys_of_a_newer_version_are_ignored_and_missing_ones_have_defaults(answer, data):
    saved = json.loads(answer_to_json(answer))
    saved["invented_later"] = {"a": [1]}
    saved["context"]["invented_later"] = 1
    assert answer_from_json(json.dumps(saved)) == answer
    gone = data.draw(st.sampled_from([f.name for f in dataclasses.fields(Answer)]))
    del saved[gone]
    expected = dataclasses.replace(answer, **{gone: getattr(EMPTY, gone)})
    assert answer_from_json(json.dumps(saved)) == expected


def test_nothing_at_all_is_an_empty_answer():
    assert answer_from_json("{}") == EMPTY


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "null", '{"text": null}', '{"citations": 5}', '{"usage": []}',
        '{"messages": [1]}', '{"context": {"passages": [{"document": "x"}]}}',
        '{"usage": {"input_tokens": "many"}}', '{"abstained": "no"}', "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_answer_is_one_clear_line(text):
    with pytest.raises(ConfigError, match="no saved answer") as caught:
        answer_from_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_metadata_that_json_does_not_know_becomes_what_it_does_or_is_refused():
    def saved(value):
        document = Document(page_content="x", metadata={"value": value})
        return dataclasses.replace(EMPTY, nearest=(ScoredDocument(document, 1.0, "dense"),))

    for value, kept in ((np.float32(0.5), 0.5), ((1, 2), [1, 2]), (np.arange(2), [0, 1])):
        back = answer_from_json(answer_to_json(saved(value)))
        assert back.nearest[0].document.metadata == {"value": kept}
    with pytest.raises(ConfigError, match="JSON values"):
        answer_to_json(saved(object()))


def test_lone_surrogates_survive():
    answer = dataclasses.replace(EMPTY, text="a\ud800b")
    text = answer_to_json(answer)
    text.encode("utf-8")
    assert answer_from_json(text) == answer
