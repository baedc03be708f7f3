"""An answer ends when somebody goes or when it repeats itself."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.language_models import GenericFakeChatModel
from scripted_assistant import QUESTION, ListRetriever, assistant, document

from fakes import ScriptedEngine
from glm_rag.assistant import Assistant
from glm_rag.chat_models import ChatGLM2
from glm_rag.types import ChatTurn


def test_closing_the_stream_stops_the_model():
    made, engine = assistant("word " * 70)
    deltas = made.stream(QUESTION)
    next(deltas)
    deltas.close()
    assert engine.closed == 1


async def test_cancelling_stops_the_model():
    made, engine = assistant("word " * 70)
    deltas = made.astream(QUESTION)
    await anext(deltas)
    task = asyncio.create_task(anext(deltas))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(100):
        if engine.closed:
            break
        await asyncio.sleep(0.01)
    assert engine.closed == 1


@pytest.mark.parametrize(
    "line", ["The leave is long.\n", "The leave is long. ", "假期很长很长很长。"]
)
def test_an_answer_that_repeats_itself_is_stopped(line):
    made, engine = assistant("Leave: " + line * 20)
    deltas = list(made.stream(QUESTION))
    answer = deltas[-1].answer
    assert answer.text == f"Leave: {line}".rstrip()
    assert answer.finish_reason == "repetition"
    assert 3 <= "".join(delta.text for delta in deltas).count(line.strip()) < 6
    assert answer.messages[-1] == ChatTurn("assistant", answer.text)
    assert engine.closed == 1


LOOP = "Leave: " + "The leave is long enough for every single one of us here. " * 20


async def test_a_foreign_model_that_repeats_itself_is_stopped():
    model = GenericFakeChatModel(messages=iter([LOOP] * 2))
    made = Assistant(ListRetriever(documents=[document()]), model)
    for answer in (made.ask(QUESTION), await made.aask(QUESTION)):
        assert answer.finish_reason == "repetition"
        assert answer.text == LOOP[: LOOP.index("here.") + 5]
        assert answer.usage.output_tokens < 100


@pytest.mark.parametrize("bound", [False, True])
def test_a_model_with_a_guard_of_its_own_decides_itself(bound):
    reply = "The leave is long. " * 20
    llm = ChatGLM2(engine=ScriptedEngine([reply]), loop_guard=False, max_tokens=500)
    made = Assistant(
        ListRetriever(documents=[document()]), llm.bind(stop=["zzz"]) if bound else llm
    )
    answer = made.ask(QUESTION)
    assert answer.finish_reason == "stop"
    assert answer.text == reply


def test_a_table_rule_is_no_loop():
    reply = "a | b\n" + "-" * 60 + "\nParental leave lasts 26 weeks."
    made, _ = assistant(reply)
    assert made.ask(QUESTION).text == reply
