"""Questions of the page over a real, tiny engine: written together, broken off at any time."""

import time
from contextlib import closing

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

import ui_fakes
from fakes import tiny_engine
from glm_rag.assistant import Assistant
from glm_rag.chat_models import ChatGLM2
from glm_rag.settings import PackingSettings, RetrievalSettings
from glm_rag.waiting import FairLine

pytest.importorskip("streamlit")

from glm_rag_ui import answering, backend

QUESTIONS = ["How long is parental leave?", "Where is lunch?", "How long is notice?"]


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def assistant(engine, *, passage="Sushi is free on Fridays.", **options):
    found = [Document(passage, id="c1", metadata={"source": "h", "start": 0, "score": 1.0})]
    return Assistant(
        RunnableLambda(lambda _question: found),
        ChatGLM2(engine=engine, temperature=0, loop_guard=False, **options),
        packing=PackingSettings(answer_reserve=16),
        retrieval=RetrievalSettings(abstain=False),
    )


def start(made, question, *, line, owner="a", **options):
    run = answering.Answering(
        ui_fakes.turn(),
        stream=lambda: made.stream(question),
        line=line,
        owner=owner,
        save=lambda _turn: None,
        **options,
    )
    run.start()
    return run


def test_answers_of_several_visitors_decode_together_and_say_what_they_say_alone():
    alone = assistant(tiny_engine(seq_length=4096), max_tokens=24)
    expected = [alone.ask(question).text for question in QUESTIONS]
    engine, together = tiny_engine(seq_length=4096), []

    def slow(_module, args, _output):
        time.sleep(0.003)
        together.append(len(args[2]))

    engine.model.encoder.layers[0].register_forward_hook(slow)
    made, line = assistant(engine, max_tokens=24, max_running=3), FairLine(3)
    runs = [start(made, question, line=line, owner=question) for question in QUESTIONS]
    assert all(run.done.wait(20) for run in runs)
    assert [run.turn.answer.text for run in runs] == expected
    assert max(together) == len(QUESTIONS), "they ran one after another"


@pytest.mark.parametrize("how", ["the stop button", "the tab is closed"])
def test_a_question_is_ended_while_its_prompt_is_read_and_frees_the_engine(monkeypatch, how):
    monkeypatch.setattr(answering, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(answering, "LOOK_SECONDS", 0.05)
    engine = tiny_engine(seq_length=32_000)  # 16,000 tokens in steps of 128: two seconds or more
    engine.model.encoder.layers[0].register_forward_hook(lambda *_args: time.sleep(0.015))
    made = assistant(engine, passage="Sushi is free. " * 1066, max_tokens=16, max_running=1)
    there, line = [True], FairLine(1)
    run = start(made, "Is sushi free?", line=line, is_connected=lambda: there[0])
    until(lambda: engine.scheduler is not None and engine.scheduler.stats().prompt_tokens)
    if how == "the stop button":
        run.stop()
    else:
        there[0] = False
    assert run.done.wait(10)
    assert (run.turn.status, run.turn.text, run.turn.error) == ("stopped", "", "")
    until(lambda: engine.scheduler.num_running == 0)
    stats = engine.scheduler.stats()
    assert stats.prompt_tokens < 12_000, "the prompt was read to its end"
    assert (stats.generated_tokens, stats.finished) == (0, {"closed": 1})
    assert line.num_running == 0


def test_what_was_cut_short_is_no_whole_answer():
    engine = tiny_engine(seq_length=4096)
    engine.model.encoder.layers[0].register_forward_hook(lambda *_args: time.sleep(0.005))
    made = assistant(engine, max_tokens=400, max_running=1)
    run = start(made, "Is sushi free?", line=FairLine(1))
    until(lambda: run.turn.text)
    run.stop()
    assert run.done.wait(10)
    assert (run.turn.status, run.turn.answer) == ("stopped", None)
    assert run.turn.text


def test_the_page_writes_as_many_answers_at_once_as_the_settings_say(home):
    from glm_rag.config import load_config

    settings = load_config(overrides={"ui.max_running": 3, "generation.max_tokens": 77})
    kb = backend.open_knowledge_base(settings, "handbook", create=True)
    with closing(kb):
        made = backend.build_assistant(settings, kb)
        assert (made.llm.max_running, made.llm.max_tokens) == (3, 77)
        remote = {"llm.backend": "openai", "llm.base_url": "http://127.0.0.1:8000/v1"}
        there = backend.build_assistant(load_config(overrides=remote), kb)
        assert there.llm.server.url == "http://127.0.0.1:8000/v1"
