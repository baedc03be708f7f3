"""Answers in a thread: waited for, written, saved, ended when nobody wants them."""

import threading
import time

import pytest

import ui_fakes
from glm_rag.errors import ContextWindowError, KnowledgeBaseNotFoundError
from glm_rag.types import AnswerDelta
from glm_rag.waiting import FairLine

pytest.importorskip("streamlit")

from glm_rag_ui import answering


@pytest.fixture
def line():
    return FairLine(1)


@pytest.fixture
def hurried(monkeypatch):
    """Patience of a fraction of a second."""
    monkeypatch.setattr(answering, "GRACE_SECONDS", 0.25)
    monkeypatch.setattr(answering, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(answering, "_WAIT_SECONDS", 0.02)


def start(line, assistant=None, *, saved=None, **options):
    assistant = assistant or ui_fakes.FakeAssistant()
    saved = [] if saved is None else saved
    run = answering.Answering(
        ui_fakes.turn(),
        stream=options.pop("stream", lambda: assistant.stream("q")),
        line=line,
        owner=options.pop("owner", "a"),
        save=options.pop("save", saved.append),
        **options,
    )
    run.start()
    return run


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def test_an_answer_is_written_to_its_end_and_saved(line):
    saved = []
    run = start(line, saved=saved)
    assert run.done.wait(10)
    assert run.turn.status == "done"
    assert run.turn.answer == ui_fakes.answer()
    assert run.turn.text == ui_fakes.REPLY
    assert run.citations == ui_fakes.answer().citations
    assert saved == [run.turn]


def test_what_came_is_saved_on_the_way(line, monkeypatch):
    monkeypatch.setattr(answering, "SAVE_SECONDS", 0.0)
    saved = []
    assert start(line, saved=saved).done.wait(10)
    lengths = [len(turn.text) for turn in saved]
    assert len(lengths) > 5
    assert lengths == sorted(lengths)
    assert {turn.status for turn in saved[:-1]} == {"running"}


def test_stopping_keeps_what_came_and_closes_the_stream(line):
    assistant = ui_fakes.FakeAssistant(delay=0.02)
    saved = []
    run = start(line, assistant, saved=saved)
    until(lambda: run.turn.text)
    run.stop()
    assert run.done.wait(10)
    assert run.turn.status == "stopped"
    assert 0 < len(run.turn.text) < len(ui_fakes.REPLY)
    assert assistant.closed.is_set()
    assert saved[-1] == run.turn


def test_a_discarded_answer_is_not_saved(line):
    saved = []
    run = start(line, ui_fakes.FakeAssistant(delay=0.02), saved=saved)
    run.stop(discard=True)
    assert run.done.wait(10)
    assert saved == []


@pytest.mark.parametrize(
    ("error", "kept", "restored"),
    [
        (ContextWindowError("too long: ask less"), "ContextWindowError: too long: ask less", True),
        (KnowledgeBaseNotFoundError("gone"), "KnowledgeBaseNotFoundError: gone", True),
        (RuntimeError("secret"), "RuntimeError", False),
        (OSError("/home/ana"), "OSError", False),
    ],
)
def test_an_error_keeps_the_part_that_came_and_its_reason(line, error, kept, restored):
    run = start(line, ui_fakes.FakeAssistant(error=error))
    assert run.done.wait(10)
    assert run.turn.status == "failed"
    assert run.turn.text == "Parental leave lasts"
    assert run.turn.error == kept
    again = answering.restored(run.turn.error)
    assert (type(again) is type(error)) == restored
    assert again is None or str(again) == str(error)


@pytest.mark.parametrize("text", ["", "os", "ImportError: x", "__name__: x", "annotations", ": x"])
def test_only_errors_of_ours_are_restored(text):
    assert answering.restored(text) is None


def test_a_failing_disk_does_not_cost_the_answer(line):
    def full(_turn):
        raise OSError("no space left")

    run = start(line, save=full)
    assert run.done.wait(10)
    assert run.turn.status == "done"
    assert isinstance(run.unsaved, OSError)


def test_questions_are_written_at_the_same_time(line):
    line = FairLine(2)
    gates = [threading.Event() for _ in "ab"]
    runs = [
        start(line, ui_fakes.FakeAssistant(gate=gate, gate_at=3), owner=owner)
        for owner, gate in zip("ab", gates, strict=True)
    ]
    for run in runs:  # both are in the middle of their answers
        until(lambda run=run: run.turn.text)
    for run, gate in zip(runs, gates, strict=True):
        gate.set()
        assert run.done.wait(10)
        assert (run.turn.status, run.turn.text) == ("done", ui_fakes.REPLY)


@pytest.mark.usefixtures("hurried")
def test_a_question_beyond_the_places_waits_and_knows_how_many_are_before_it(line):
    gate = threading.Event()
    first = start(line, ui_fakes.FakeAssistant(gate=gate))
    until(lambda: line.num_running)
    assistant = ui_fakes.FakeAssistant()
    second = start(line, assistant, owner="b")
    until(lambda: second.ahead == 1)
    assert assistant.asked == []
    gate.set()
    assert first.done.wait(10)
    assert second.done.wait(10)
    assert second.ahead == 0
    assert second.turn.status == "done"


@pytest.mark.usefixtures("hurried")
def test_a_second_question_of_one_visitor_does_not_pass_anothers_first(line):
    order, served = [], line.enter("busy")

    def asked(name):
        order.append(name)
        yield AnswerDelta("", ui_fakes.answer())

    runs = []
    for name in ("a1", "a2", "b1"):
        runs.append(start(line, stream=lambda name=name: asked(name), owner=name[0]))
        until(lambda: line.num_waiting == len(runs))
    until(lambda: [run.ahead for run in runs] == [1, 3, 2])
    served.leave()
    for run in runs:
        assert run.done.wait(10)
    assert order == ["a1", "b1", "a2"]


@pytest.mark.usefixtures("hurried")
def test_one_that_waits_can_be_stopped_and_gives_its_seat_up(line):
    served = line.enter("busy")
    assistant = ui_fakes.FakeAssistant()
    run = start(line, assistant)
    until(lambda: line.num_waiting == 1)
    run.stop()
    assert run.done.wait(5)
    assert run.turn.status == "stopped"
    assert assistant.asked == []
    assert (line.num_running, line.num_waiting) == (1, 0)
    served.leave()


@pytest.mark.usefixtures("hurried")
def test_an_answer_nobody_looks_at_is_ended_and_frees_the_engine(line):
    assistant = ui_fakes.FakeAssistant(delay=0.05)
    run = start(line, assistant, is_connected=lambda: False)
    assert run.done.wait(10)
    assert run.turn.status == "stopped"
    assert run.turn.text
    assert assistant.closed.is_set()
    until(lambda: line.num_running == 0)


@pytest.mark.usefixtures("hurried")
def test_somebody_who_looks_keeps_an_answer_alive(line):
    run = start(line, ui_fakes.FakeAssistant(delay=0.05), is_connected=lambda: False)
    while not run.done.wait(0.05):
        run.seen()
    assert run.turn.status == "done"


@pytest.mark.usefixtures("hurried")
def test_a_browser_that_comes_back_in_time_loses_nothing(line):
    began = time.monotonic()
    run = start(
        line,
        ui_fakes.FakeAssistant(delay=0.05),
        is_connected=lambda: time.monotonic() - began > 0.15,
    )
    assert run.done.wait(10)
    assert run.turn.status == "done"


def test_a_stream_that_ends_without_an_answer_is_a_stopped_one(line):
    run = start(line, stream=lambda: (delta for delta in [AnswerDelta("Half")]))
    assert run.done.wait(10)
    assert (run.turn.status, run.turn.text) == ("stopped", "Half")


def test_other_pages_find_an_answer_until_it_is_done(line):
    gate = threading.Event()
    assistant = ui_fakes.FakeAssistant(gate=gate)
    turn = ui_fakes.turn(id="t-find", conversation_id="c-find", position=3)
    saved = []
    run = answering.begin(
        answering.Answering(
            turn, stream=lambda: assistant.stream("q"), line=line, owner="a", save=saved.append
        )
    )
    assert answering.find(turn) is run
    answering.end("c-find", 4)
    answering.end("another")
    assert not run.is_stopping
    answering.end("c-find", 2)
    assert run.is_stopping
    gate.set()
    assert run.done.wait(10)
    assert saved == []
