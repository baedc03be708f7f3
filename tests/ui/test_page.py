"""The page in process, over a scripted backend: what it shows and what it calls."""

from pathlib import Path

import pytest

import ui_fakes
from glm_rag.errors import ContextWindowError, KnowledgeBaseError
from glm_rag.samples import handbook_folder
from glm_rag.types import IngestFailure

testing = pytest.importorskip("streamlit.testing.v1")

APP = str(Path(__file__).parents[2] / "ui" / "glm_rag_ui" / "app.py")


def page(**query: str):
    """The page as a new visitor sees it."""
    test = testing.AppTest.from_file(APP, default_timeout=20)
    for name, value in query.items():
        test.query_params[name] = value
    return test.run()


def shown(test) -> str:
    """All HTML on the page."""
    assert not test.exception
    return "\n".join(element.proto.body for element in test.get("html"))


def ask(test, question: str):
    return test.chat_input[0].set_value(question).run()


def links(test) -> list:
    """Links to other pages."""
    return [element.proto for element in test.get("page_link")]


def button(test, label: str):
    return next(item for item in test.button if item.label == label)


def test_a_new_visitor_sees_what_can_be_asked(backend):
    test = page()
    assert "What would you like to know?" in shown(test)
    assert test.selectbox[0].value == "handbook"
    assert "2 documents" in [link.label for link in links(test)]
    assert not test.chat_input[0].disabled


def test_an_answer_comes_with_marks_sources_and_figures(backend):
    html = shown(ask(page(), "How long is parental leave?"))
    assert 'href="#a0-1"' in html
    assert f'<mark id="a0-1">{ui_fakes.QUOTE}</mark>' in html
    assert "first word after 0.8 s" in html


def test_a_chinese_question_to_an_english_model_is_warned_about(backend):
    test = ask(page(), "育儿假有多长？")
    assert "This model reads English only" in shown(test)
    assert "This model reads English only" in shown(test.run())
    assert "This model reads English only" not in shown(ask(page(), "How long is the leave?"))


def test_a_follow_up_passes_the_last_answer_on(backend):
    test = ask(page(), "How long is parental leave?")
    test = ask(test, "And for part-timers?")
    asked = backend.assistant.asked
    assert [question for question, _ in asked] == [
        "How long is parental leave?",
        "And for part-timers?",
    ]
    assert asked[0][1] is None
    assert asked[1][1] is backend.assistant.result
    assert 'id="a1-1"' in shown(test)


def test_an_abstention_says_so_and_shows_what_came_closest(backend):
    backend.assistant.result = ui_fakes.abstention()
    html = shown(ask(page(), "Who built the moon?"))
    assert "I found nothing about this" in html
    assert "Nearest passages" in html


def test_an_error_in_mid_stream_keeps_the_part_that_came(backend):
    backend.assistant.error = ContextWindowError("the prompt has 9,000 tokens: ask less")
    html = shown(ask(page(), "How long?"))
    assert "<p>Parental leave lasts</p>" in html
    assert "What came before is kept" in html
    assert "9,000 tokens" in html


def test_an_unexpected_error_shows_no_traceback(backend):
    backend.assistant.error = RuntimeError("secret")
    backend.assistant.error_after = 0
    html = shown(ask(page(), "How long?"))
    assert "RuntimeError" in html
    assert "secret" not in html


def test_a_failed_turn_is_not_history(backend):
    backend.assistant.error = ContextWindowError("too long")
    test = ask(page(), "first")
    backend.assistant.error = None
    ask(test, "second")
    assert backend.assistant.asked[1][1] is None


def test_a_new_conversation_forgets(backend):
    test = ask(page(), "How long?")
    button(test, "New conversation").click()
    test.run()
    assert "What would you like to know?" in shown(test)
    ask(test, "again")
    assert backend.assistant.asked[-1][1] is None


def test_each_knowledge_base_has_its_own_conversation(backend):
    backend.bases["other"] = ui_fakes.FakeKnowledgeBase([ui_fakes.document_info("b.txt")])
    test = ask(page(), "How long?")
    test.selectbox[0].set_value("other").run()
    assert "What would you like to know?" in shown(test)
    test.selectbox[0].set_value("handbook").run()
    assert "Parental leave lasts" in shown(test)


def test_the_address_chooses_language_and_knowledge_base(backend):
    backend.bases["other"] = ui_fakes.FakeKnowledgeBase([ui_fakes.document_info("b.txt")])
    test = page(lang="zh", kb="other")
    assert "想了解什么" in shown(test)
    assert test.selectbox[0].value == "other"
    assert test.chat_input[0].placeholder == "向“other”提问"


def test_switching_the_language_translates_the_answers_around_it(backend):
    test = ask(page(), "How long?")
    test.get("button_group")[0].set_value("zh").run()
    html = shown(test)
    assert "来源" in html
    assert "Parental leave lasts" in html
    assert test.query_params["lang"] in ("zh", ["zh"])


def test_an_empty_knowledge_base_offers_the_sample_handbook(backend):
    test = page(kb="fresh")
    assert "This knowledge base is empty" in shown(test)
    assert test.chat_input[0].disabled
    button(test, "Load the sample handbook").click()
    test.run()
    assert backend.ingested == [("fresh", [handbook_folder()])]
    assert "1 added" in shown(test)
    assert not test.chat_input[0].disabled


def test_without_a_model_the_page_offers_to_fetch_the_small_one(backend):
    backend.model_present = False
    test = page()
    assert "One step before the first question" in shown(test)
    assert test.chat_input[0].disabled
    button(test, "Fetch SmolLM2-135M").click()
    test.run()
    assert backend.model_present
    assert not test.chat_input[0].disabled


def test_uploaded_files_are_kept_and_failures_have_a_reason(backend, home):
    test = page()
    files = [("../a:b.txt", b"hello", "text/plain"), ("locked.pdf", b"%PDF", "application/pdf")]
    test.file_uploader[0].set_value(files)
    test.run()
    folder = home / "uploads" / "handbook"
    assert {path.name for path in folder.iterdir()} == {"a b.txt", "locked.pdf"}
    assert (folder / "a b.txt").read_bytes() == b"hello"
    html = shown(test)
    assert "1 added" in html
    assert "password-protected" in html
    assert "3 documents" in [item.label for item in test.expander]
    assert "1 file could not be read" in [item.label for item in test.expander]


def test_a_file_is_ingested_once_not_at_every_rerun(backend):
    test = page()
    test.file_uploader[0].set_value([("a.txt", b"x", "text/plain")])
    test.run()
    test.run()
    assert len(backend.ingested) == 1


def test_hostile_names_are_text(backend):
    evil = "<img src=x onerror=alert(1)>![x](http://e/p.png).txt"
    kb = backend.bases["handbook"]
    kb.stored.append(ui_fakes.document_info(evil))
    kb.failed.append(IngestFailure(f"file:///{evil}", "load", f"corrupt: {evil}", True))
    html = shown(page())
    assert "<img" not in html
    assert "&lt;img" in html


def test_a_damaged_knowledge_base_is_one_friendly_line(backend, monkeypatch):
    from glm_rag_ui import backend as seam

    def damaged(*_arguments, **_options):
        raise KnowledgeBaseError("the file library.db is damaged: run glm-rag kb verify")

    monkeypatch.setattr(seam, "open_knowledge_base", damaged)
    html = shown(page())
    assert "The knowledge base cannot be used." in html
    assert "glm-rag kb verify" in html


def test_a_wrong_setting_is_one_friendly_line(backend, monkeypatch):
    monkeypatch.setenv("GLM_RAG_MODLE__NAME", "x")
    assert "did you mean `model`" in shown(page())


@pytest.mark.usefixtures("backend")
def test_two_visitors_do_not_see_each_other():
    ask(page(), "my secret question")
    assert "my secret question" not in shown(page())


def test_a_stopped_answer_keeps_what_came_and_says_so():
    from glm_rag_ui.i18n import translator
    from glm_rag_ui.session import Turn
    from glm_rag_ui.views import chat

    html = chat.finished(Turn("q", text="Half of an"), "a0", translator("en"))
    assert "Half of an" in html
    assert "incomplete" in html
