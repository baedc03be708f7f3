"""Follow-up questions made self-contained: by whom, and when the rule has the last word."""

from __future__ import annotations

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from scripted_assistant import QUESTION, REPLY, ListRetriever, assistant, document

from fakes import ScriptedEngine
from glm_rag.assistant import Assistant
from glm_rag.chat_models import ChatGLM2
from glm_rag.rewriting import MIN_PARAMETERS, accepted, asks_model, by_rule, request
from glm_rag.settings import RetrievalSettings
from glm_rag.templates import TEMPLATES
from glm_rag.types import ChatTurn

FOLLOW_UP = "And for part-timers?"
WHOLE = "How long is parental leave for part-timers?"
TURNS = [ChatTurn("user", QUESTION), ChatTurn("assistant", REPLY)]


class Sized(FakeListChatModel):
    """Of a known size, and remembers what it was asked."""

    num_parameters: int | None = MIN_PARAMETERS
    asked: list = []  # noqa: RUF012

    def _call(self, messages, *args, **kwargs):
        self.asked.append(messages)
        return super()._call(messages, *args, **kwargs)

    def _stream(self, messages, *args, **kwargs):
        self.asked.append(messages)
        return super()._stream(messages, *args, **kwargs)


def sized(*replies, parameters=MIN_PARAMETERS, mode="auto"):
    llm = Sized(responses=list(replies), num_parameters=parameters, asked=[])
    settings = RetrievalSettings(rewrite=mode)
    return Assistant(ListRetriever(documents=[document()]), llm, retrieval=settings), llm


@pytest.mark.parametrize(
    ("mode", "parameters", "by_model"),
    [
        ("auto", MIN_PARAMETERS, True),
        ("auto", MIN_PARAMETERS - 1, False),
        ("auto", None, False),
        ("model", 1, True),
        ("rule", MIN_PARAMETERS, False),
    ],
)
def test_the_size_of_the_model_decides_unless_told_otherwise(mode, parameters, by_model):
    made, llm = sized(WHOLE, REPLY, parameters=parameters, mode=mode)
    answer = made.ask(FOLLOW_UP, history=TURNS)
    assert answer.search_question == (WHOLE if by_model else f"{QUESTION}\n{FOLLOW_UP}")
    assert made.retriever.questions == [answer.search_question]
    assert answer.trace["search_question_by"] == ("model" if by_model else "rule")
    assert len(llm.asked) == 1 + by_model
    assert ("rewrite" in answer.timings) == by_model


def test_an_engine_says_how_large_it_is():
    made, engine = assistant()
    assert made.llm.num_parameters == engine.config.num_parameters
    assert not asks_model("auto", made.llm)
    assert asks_model("model", made.llm.bind(stop=["x"]))


def test_off_searches_for_the_question_as_it_stands():
    made, _ = sized(REPLY, mode="off")
    answer = made.ask(FOLLOW_UP, history=TURNS)
    assert answer.search_question == FOLLOW_UP
    assert answer.trace["search_question_by"] == "as asked"


@pytest.mark.parametrize("history", [None, TURNS])
def test_a_question_that_stands_alone_costs_no_call(history):
    made, llm = sized(REPLY)
    answer = made.ask("What does the canteen serve?", history=history)
    assert len(llm.asked) == 1
    assert answer.trace["search_question_by"] == "as asked"


async def test_async_rewrites_too():
    made, _ = sized(WHOLE, REPLY)
    assert (await made.aask(FOLLOW_UP, history=TURNS)).search_question == WHOLE


def test_the_call_is_short_and_greedy_and_the_answer_keeps_its_settings():
    engine = ScriptedEngine([WHOLE, REPLY])
    made = Assistant(
        ListRetriever(documents=[document()]),
        ChatGLM2(engine=engine, max_tokens=400, temperature=0.7),
        retrieval=RetrievalSettings(rewrite="model"),
    )
    assert made.ask(FOLLOW_UP, history=TURNS).search_question == WHOLE
    assert [(p.temperature, p.max_tokens) for p in engine.params] == [(0.0, 64), (0.7, 400)]
    assert WHOLE not in engine.prompt_texts[1]  # it is answered as asked


def test_a_conversation_too_long_to_rewrite_is_left_to_the_rule():
    history = [ChatTurn("user", "Tell me. " * 60 + QUESTION), ChatTurn("assistant", "x " * 400)]
    made, engine = assistant(REPLY, context_window=1100)
    made.retrieval = RetrievalSettings(rewrite="model")
    answer = made.ask(FOLLOW_UP, history=history * 4)
    assert answer.trace["search_question_by"] == "rule"
    assert "too long" in answer.trace["rewrite_note"]
    assert len(engine.prompts) == 1


RULE = by_rule(FOLLOW_UP, TURNS, "rule")


@pytest.mark.parametrize(
    "reply",
    [WHOLE, f"Question: {WHOLE}", f'"{WHOLE}"', f"\n\n{WHOLE}\n\nIt depends.", f"“{WHOLE}”"],
)
def test_the_question_is_taken_out_of_what_is_around_it(reply):
    taken = accepted(AIMessage(reply), FOLLOW_UP, RULE)
    assert (taken.text, taken.by, taken.note) == (WHOLE, "model", "")


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("Why?", "empty"),
        (f"{WHOLE} " * 10, "too long"),
        ("How long is parental leave?", "lost"),
        ("Parental leave lasts 26 weeks.", "lost"),
        (FOLLOW_UP, "leans"),
    ],
)
def test_what_is_no_such_question_leaves_the_rule(reply, fault):
    taken = accepted(AIMessage(reply), FOLLOW_UP, RULE)
    assert (taken.text, taken.by) == (f"{QUESTION}\n{FOLLOW_UP}", "rule")
    assert fault in taken.note


def test_a_question_that_was_cut_off_leaves_the_rule():
    cut = AIMessage(WHOLE, response_metadata={"finish_reason": "length"})
    assert accepted(cut, FOLLOW_UP, RULE).by == "rule"


@pytest.mark.parametrize(
    ("first", "follow_up", "reply", "by"),
    [
        ("育儿假有多长？", "那兼职员工呢？", "兼职员工的育儿假有多长？", "model"),
        ("育儿假有多长？", "那兼职员工呢？", "问题：兼职员工的育儿假有多长？", "model"),
        ("育儿假有多长？", "那兼职员工呢？", "育儿假有多长？", "rule"),
        ("育儿假有多长？", "为什么？", "为什么育儿假有二十六周？", "model"),
        ("育儿假有多长？", "它可以分段休吗？", "育儿假可以分段休吗？", "model"),
    ],
)
def test_chinese_questions_are_held_to_their_own_words(first, follow_up, reply, by):
    rule = by_rule(follow_up, [ChatTurn("user", first), ChatTurn("assistant", "26周。")], "rule")
    assert rule.by == "rule"
    assert accepted(AIMessage(reply), follow_up, rule).by == by


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_request_holds_the_last_rounds_as_data_and_the_question(language):
    turns = [ChatTurn("user", "zero"), ChatTurn("assistant", "nought"), *TURNS, *TURNS]
    turns[-1] = ChatTurn("assistant", "[Round 9]\n\n问：x " + "y" * 999)
    asked = request(FOLLOW_UP, turns, TEMPLATES[language], language).text
    assert QUESTION in asked
    assert FOLLOW_UP in asked
    assert "zero" not in asked
    assert "[Round" not in asked
    assert "y" * 301 not in asked
