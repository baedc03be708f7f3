"""Files dropped into the chat box, and foreign words all over the page."""

import threading
import time

import pytest

from glm_rag.config import load_config
from glm_rag.conversations import ConversationStore
from glm_rag.errors import KnowledgeBaseError
from glm_rag.types import IngestFailure
from ui_driver import ask, links, page, press, shown
from ui_fakes import PROFILE

pytest.importorskip("streamlit")

from glm_rag_ui import runs


def new():
    """A visit that goes on with none of the conversations before."""
    return press(page(), "New conversation")


def drop(test, *files: tuple[str, bytes], question: str = ""):
    """Drop files into the chat box, and send them with a question or without."""
    for name, data in files:
        test.chat_input[0].upload(name, data, "application/octet-stream")
    test = test.chat_input[0].set_value(question).run()
    if not question:  # the page draws itself anew when the files are read
        run = runs.SHARED.get(load_config().home, test.session_state["kb"])
        assert run is None or run.wait(20)
        test.run()
    return test


FILES = (("a:b.txt", b"hello"), ("locked.pdf", b"%PDF"))


def test_files_in_the_chat_box_are_taken_in_then_the_question_is_asked(backend, home):
    test = drop(page(), *FILES, question="What is new?")
    folder = home / "uploads" / "handbook"
    assert {path.name for path in folder.iterdir()} == {"a b.txt", "locked.pdf"}
    assert (folder / "a b.txt").read_bytes() == b"hello"
    html = shown(test)
    assert "1 added" in html
    assert "password-protected" in html
    assert "Parental leave lasts" in html
    assert html.index("1 added") < html.index("Parental leave lasts")
    assert [question for question, _ in backend.assistant.asked] == ["What is new?"]


def test_files_without_a_question_are_taken_in_and_told(backend):
    test = drop(page(), *FILES)
    html = shown(test)
    assert "1 added" in html
    assert "password-protected" in html
    assert not backend.assistant.asked
    assert "3 documents · 1 not readable" in [link.label for link in links(test)]
    test = ask(test, "And now?")
    assert "1 added" not in shown(test)
    assert "1 added" not in shown(test.run())


def test_files_fill_an_empty_knowledge_base(backend):
    test = drop(page(kb="fresh"), ("a.txt", b"x"), question="What does it say?")
    assert "Parental leave lasts" in shown(test)
    assert len(backend.bases["fresh"].stored) == 1


def test_files_of_the_same_name_in_one_drop_are_all_kept(backend, home):
    drop(page(), ("a.txt", b"one"), ("a.txt", b"two"), question="What is new?")
    folder = home / "uploads" / "handbook"
    assert {path.read_bytes() for path in folder.iterdir()} == {b"one", b"two"}


@pytest.fixture
def busy(backend, tmp_path):
    """A knowledge base that somebody else's files are read into until the event is set."""
    gate, begun, ingest = threading.Event(), threading.Event(), backend.ingest

    def slow(settings, name, paths, on_progress):
        if paths[0].name == "book.txt":
            begun.set()
            gate.wait(20)
        return ingest(settings, name, paths, on_progress)

    backend.ingest = slow
    run = runs.SHARED.add("handbook", runs.Batch(load_config(), (tmp_path / "book.txt",)))
    assert begun.wait(5)
    yield gate
    gate.set()
    assert run.wait(20)


def test_a_question_with_files_waits_for_a_run_of_others_and_is_answered_then(backend, busy):
    threading.Timer(0.5, busy.set).start()
    html = shown(drop(page(), ("a.txt", b"x"), question="What is new?"))
    assert "Parental leave lasts" in html
    assert [[path.name for path in paths] for _, paths in backend.ingested] == [
        ["book.txt"],
        ["a.txt"],
    ]
    assert html.count("1 added") == 1


def test_a_stopped_run_stops_the_question_that_waits_for_it(backend, busy):
    run = runs.SHARED.get(load_config().home, "handbook")

    def stop():
        while len(run.batches) < 2:
            time.sleep(0.02)
        run.stop()
        busy.set()

    stopping = threading.Thread(target=stop)
    stopping.start()
    html = shown(drop(page(), ("a.txt", b"x"), question="What is new?"))
    stopping.join(20)
    assert "Stopped. The answer is incomplete." in html
    assert not backend.assistant.asked


def test_a_page_drawn_anew_breaks_neither_files_nor_their_question_off(backend, busy):
    test = page()
    done = threading.Thread(target=drop, args=(test, ("a.txt", b"x")), kwargs={"question": "New?"})
    done.start()
    store = ConversationStore(load_config().home / "conversations.sqlite")
    while not (found := store.list(PROFILE)):
        time.sleep(0.02)
    threading.Timer(0.5, busy.set).start()
    assert "Parental leave lasts" in shown(page(conversation=found[0].id))
    done.join(20)


def test_a_file_is_taken_in_once_not_at_every_rerun(backend):
    test = drop(page(), ("a.txt", b"x"))
    test.run()
    assert len(backend.ingested) == 1


def test_files_that_cannot_be_taken_in_fail_the_question_with_the_reason(backend, monkeypatch):
    def locked(*_arguments):
        raise KnowledgeBaseError("another process writes: wait for it with --wait")

    monkeypatch.setattr(backend, "ingest", locked)
    test = drop(page(), ("a.txt", b"x"), question="What is new?")
    for html in (shown(test), shown(test.run())):
        assert "wait for it with --wait" in html
    assert not backend.assistant.asked
    assert "wait for it with --wait" in shown(drop(new(), ("a.txt", b"x")))


def test_every_format_that_is_read_can_be_dropped(backend):
    from glm_rag_ingest.loaders.suffixes import BY_SUFFIX

    offered = page().chat_input[0].proto.file_type
    assert set(offered) == set(BY_SUFFIX)


EVIL = "<img src=x onerror=alert(1)> ![x](http://e.example/p.png) $x$ :smile: \u202egnp"


def test_hostile_names_questions_and_suggestions_are_text(backend):
    backend.suggested = [EVIL]
    test = page()
    assert all("![x](" not in item.label and "$x$" not in item.label for item in test.button)
    test = drop(test, (f"{EVIL.replace('/', '')}.txt", b"x"), question=EVIL)
    html = shown(test)
    assert "<img" not in html
    assert "&lt;img" in html
    assert "\u202e" not in html
    test.run()
    labels = [item.label for item in test.button]
    assert all("![x](" not in label and "\u202e" not in label for label in labels)
    kb = backend.bases["handbook"]
    kb.failed.append(IngestFailure(f"file:///{EVIL}", "load", f"corrupt: {EVIL}", True))
    assert "<img" not in shown(test.run())
