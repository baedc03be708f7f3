"""Follow-up questions: what goes along, and what is searched for."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from glm_rag.conversation import history_turns, leans_on_history, recent_turns, search_question
from glm_rag.errors import ConfigError
from glm_rag.types import Answer, ChatTurn, PackedContext, Usage

TURNS = [ChatTurn("user", "How long is parental leave?"), ChatTurn("assistant", "26 weeks.")]
ANSWER = Answer(
    text="26 weeks.",
    citations=(),
    context=PackedContext((), 0, 0, 0),
    usage=Usage(1, 1),
    timings={},
    finish_reason="stop",
    abstained=False,
    messages=tuple(TURNS),
)


@pytest.mark.parametrize(
    "history",
    [
        ANSWER,
        TURNS,
        [(turn.role, turn.text) for turn in TURNS],
        [("human", TURNS[0].text), ("ai", TURNS[1].text)],
        [{"role": turn.role, "content": turn.text} for turn in TURNS],
        [HumanMessage(TURNS[0].text), AIMessage(TURNS[1].text)],
    ],
)
def test_every_form_of_history_gives_the_same_turns(history):
    assert history_turns(history) == TURNS


def test_no_history_is_no_turns():
    assert history_turns(None) == history_turns([]) == []


def test_ids_kept_in_a_message_survive():
    message = AIMessage("26 weeks.", additional_kwargs={"token_ids": [1, 2]})
    assert history_turns([message])[0].token_ids == (1, 2)


@pytest.mark.parametrize(
    "history", ["How long?", 3, ["How long?", ANSWER], [("wizard", "hi")], [SystemMessage("be")]]
)
def test_any_other_history_is_one_clear_error(history):
    with pytest.raises(ConfigError) as caught:
        history_turns(history)
    assert "\n" not in str(caught.value)


def test_history_is_cut_at_whole_turns_and_keeps_the_newest():
    turns = [*TURNS, ChatTurn("user", "And part-timers?"), ChatTurn("assistant", "The same.")]

    def fits(end):
        return sum(len(turn.text) for turn in end) <= 40

    assert recent_turns(turns, fits) == turns[2:]
    assert recent_turns(turns, lambda end: True) == turns
    assert recent_turns(turns, lambda end: False) == []


@pytest.mark.parametrize(
    "question",
    [
        "And for part-timers?",
        "For part-timers?",
        "Why?",
        "Who approves it?",
        "What about their pay?",
        "What is the policy for that?",
        "那兼职员工呢？",
        "兼职呢？",
        "它什么时候开始？",
        "这个要多久？",
        "为什么？",
    ],
)
def test_a_question_that_points_back_is_searched_with_the_one_before(question):
    assert leans_on_history(question)
    assert search_question(question, TURNS) == f"{TURNS[0].text}\n{question}"
    assert search_question(question, []) == question


@pytest.mark.parametrize(
    "question",
    [
        "What is the wifi password?",
        "Where is the canteen?",
        "Who runs the IT department?",
        "In which city is the office?",
        "食堂在哪里？",
        "应该找谁报销？",
        "公司的其他假期有哪些？",
        "为什么要打卡？",
    ],
)
def test_a_question_that_stands_alone_is_searched_alone(question):
    assert search_question(question, TURNS) == question
