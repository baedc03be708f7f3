"""LangChain messages to turns: what is read, what is merged, what is refused."""

from __future__ import annotations

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from glm_rag.errors import ConfigError
from glm_rag.messages import prompt_turns, to_messages, to_turns
from glm_rag.types import ChatTurn


def test_roles_and_texts_are_kept():
    messages = [
        SystemMessage("s"),
        HumanMessage("q"),
        AIMessageChunk("a"),
        ChatMessage("q2", role="user"),
    ]
    assert to_turns(messages) == [
        ChatTurn("system", "s"),
        ChatTurn("user", "q"),
        ChatTurn("assistant", "a"),
        ChatTurn("user", "q2"),
    ]


def test_neighbours_of_one_role_become_one_turn_without_ids():
    kept = AIMessage("a", additional_kwargs={"token_ids": [1]})
    assert to_turns([kept, AIMessage("b")]) == [ChatTurn("assistant", "a\n\nb")]


def test_text_blocks_are_read():
    blocks = [{"type": "text", "text": "one "}, "two"]
    assert to_turns([HumanMessage(blocks)]) == [ChatTurn("user", "one two")]


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}]), "image_url"),
        (ToolMessage("3", tool_call_id="1"), "tool"),
        (FunctionMessage("3", name="f"), "function"),
        (ChatMessage("x", role="wizard"), "wizard"),
        (AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]), "tool calls"),
    ],
)
def test_what_the_model_cannot_read_is_refused_by_name(message, word):
    with pytest.raises(ConfigError, match=word):
        to_turns([message])


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "nothing to answer"),
        ([SystemMessage("s")], "nothing to answer"),
        ([HumanMessage("q"), AIMessage("a")], "ends with an assistant message"),
        ([AIMessage("hi"), HumanMessage("q")], "starts with a user message"),
        ([HumanMessage("q"), SystemMessage("s")], "must come first"),
    ],
)
def test_a_conversation_the_model_cannot_answer_is_refused(messages, reason):
    with pytest.raises(ConfigError, match=reason):
        prompt_turns(messages)


def test_turns_survive_the_way_to_messages_and_back():
    turns = [
        ChatTurn("system", "s"),
        ChatTurn("user", "q"),
        ChatTurn("assistant", "a", (1, 2)),
        ChatTurn("user", "q2"),
    ]
    assert to_turns(to_messages(turns)) == turns


@pytest.mark.parametrize("ids", ["12", [1, "2"], None])
def test_damaged_ids_are_ignored(ids):
    (turn,) = to_turns([AIMessage("a", additional_kwargs={"token_ids": ids})])
    assert turn.token_ids is None
