"""The context window: refused before any compute where it cannot hold the question; reported."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_assistant import QUESTION, REPLY, TEXT, assistant, document
from typer.testing import CliRunner

from glm_rag import build
from glm_rag.cli.main import app
from glm_rag.errors import ContextWindowError
from glm_rag.settings import PackingSettings
from glm_rag.types import ChatTurn

LONG = "why " * 500


def rounds(number: int, length: int = 80) -> list[ChatTurn]:
    return [
        ChatTurn(role, f"{role} {n} " + "x" * length)
        for n in range(number)
        for role in ("user", "assistant")
    ]


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize("history", [None, rounds(3)])
async def test_a_question_too_long_is_refused_before_anything_is_computed(history):
    made, engine = assistant(context_window=1100)
    with pytest.raises(ContextWindowError, match="shorten the question"):
        made.ask(LONG, history=history)
    with pytest.raises(ContextWindowError, match="window holds 1100"):
        await made.aask(LONG, history=history)
    assert made.retriever.questions == []
    assert engine.prompts == []


@pytest.fixture
def command_line(monkeypatch):
    """The commands with a model that recites and a retriever that finds the same."""
    made, engine = assistant(REPLY, context_window=1100)

    class Opened:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    for module in (build, __import__("glm_rag.api", fromlist=["api"])):
        monkeypatch.setattr(module, "open_for_questions", lambda *_args, **_options: Opened())
        monkeypatch.setattr(module, "build_assistant", lambda *_: made)
    return made, engine


def test_ask_refuses_a_long_question_in_one_line(command_line):
    made, engine = command_line
    done = CliRunner().invoke(app, ["ask", LONG])
    assert isinstance(done.exception, ContextWindowError)
    assert "\n" not in str(done.exception)
    assert (made.retriever.questions, engine.prompts) == ([], [])


def test_chat_says_so_and_goes_on_with_the_conversation(command_line):
    _, engine = command_line
    lines = f"{QUESTION}\n{LONG}\nAnd for part-timers?\n/exit\n"
    done = CliRunner().invoke(app, ["chat"], input=lines, env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    assert done.output.count("shorten the question") == 1
    assert len(engine.prompts) == 2
    assert QUESTION in engine.prompt_texts[1]


def test_json_carries_the_trace_and_the_window(command_line):
    _, engine = command_line
    done = CliRunner().invoke(app, ["ask", QUESTION, "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.output)
    assert answer["trace"]["decision"] == "answered"
    assert answer["trace"]["passages_packed"] == 1
    assert answer["window"]["size"] == 1100
    assert answer["window"]["passages"]
    spent = answer["window"]
    total = spent["system"] + spent["history"] + sum(spent["passages"]) + spent["question"]
    assert total == len(engine.prompts[0])


# ---------------------------------------------------------------- reported


@settings(max_examples=40)
@given(
    window=st.integers(1100, 4000),
    num_documents=st.integers(1, 5),
    num_rounds=st.integers(0, 8),
    question=st.sampled_from([QUESTION, "育儿假有多长？"]),
)
def test_the_report_adds_up_to_the_prompt_and_the_window(
    window, num_documents, num_rounds, question
):
    found = [document(f"{n} {TEXT}", start=1000 * n) for n in range(1, num_documents + 1)]
    packing = PackingSettings(window=window, answer_reserve=200)
    made, engine = assistant(documents=found, packing=packing)
    answer = made.ask(question, history=rounds(num_rounds))
    spent = answer.window
    prompt = spent.system + spent.history + sum(spent.passages) + spent.question
    assert prompt == len(engine.prompts[0]) == answer.usage.input_tokens
    assert prompt + spent.reserve + spent.free == spent.size == window
    assert spent.reserve == 200
    assert spent.free >= 0
    assert len(spent.passages) == answer.trace["passages_packed"] == len(answer.context.passages)
    assert min(*spent.passages, spent.question, spent.system) > 0
    assert spent.passages_left_out == answer.context.num_dropped
    kept = engine.prompt_texts[0].count("user\nuser ")
    assert spent.rounds_left_out == num_rounds - kept
    assert (spent.history > 0) == (kept > 0)


def test_rounds_that_lost_their_passages_and_rounds_that_went_are_reported():
    packing = PackingSettings(window=2000, answer_reserve=200, history_share=0.5)
    made, _ = assistant(REPLY, packing=packing)
    answer, reports = None, []
    for n in range(8):
        made.retriever.documents = [document(f"{n} {TEXT}", start=1000 * n)]
        answer = made.ask(QUESTION, history=answer)
        reports.append((answer.window.rounds_shortened, answer.window.rounds_left_out))
    assert reports[0] == (0, 0)
    assert any(shortened for shortened, _ in reports)
    assert reports[-1][1] > 0


def test_declined_questions_are_not_counted_as_left_out():
    made, _ = assistant()
    found, made.retriever.documents = made.retriever.documents, []
    declined = made.ask("What is the capital of France?")
    assert declined.window is None
    assert declined.trace["decision"].startswith("declined before the model was asked: no passage")
    made.retriever.documents = found
    assert made.ask(QUESTION, history=declined).window.rounds_left_out == 0


# ---------------------------------------------------------------- traced


def test_the_trace_says_what_was_found_packed_and_dropped():
    found = [document(f"{n} {TEXT}", start=1000 * n, score=1 - n / 50) for n in range(6)]
    found[0].metadata["evidence"] = 1.25
    made, _ = assistant(documents=found, packing=PackingSettings(max_passages=2))
    trace = made.ask(QUESTION).trace
    assert (trace["passages_found"], trace["passages_packed"]) == (6, 2)
    assert trace["passages_dropped"] == 4
    assert trace["evidence"] == 1.25
    assert trace["search_question_by"] == "as asked"


def test_the_trace_of_a_follow_up_counts_passages_shown_before():
    made, _ = assistant(REPLY, "The same.")
    trace = made.ask("And for part-timers?", history=made.ask(QUESTION)).trace
    assert (trace["passages_packed"], trace["passages_shown_before"]) == (0, 1)
    assert trace["search_question_by"] == "rule"


def test_the_trace_tells_a_model_that_declined_from_missing_evidence():
    weak, _ = assistant(documents=[document(evidence=-2.0)])
    trace = weak.ask(QUESTION).trace
    assert trace["evidence"] == -2.0
    assert trace["decision"].startswith("declined before")
    refusing, _ = assistant("The passages do not answer this question.")
    assert refusing.ask(QUESTION).trace["decision"].startswith("declined after")
