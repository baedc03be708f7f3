"""The chat in process, over a scripted backend: what it shows and what it calls."""

import threading
import time

import pytest

import ui_fakes
from glm_rag.config import load_config
from glm_rag.conversations import ConversationStore
from glm_rag.errors import ContextWindowError, KnowledgeBaseError
from glm_rag.samples import handbook_folder
from ui_driver import address, ask, button, links, open_page, page, press, shown

pytest.importorskip("streamlit")

from glm_rag_ui import runs


def test_a_new_visitor_sees_what_can_be_asked(backend):
    test = page()
    assert "What would you like to know?" in shown(test)
    assert test.selectbox[0].value == "handbook"
    assert "2 documents" in [link.label for link in links(test)]
    assert not test.chat_input[0].disabled


def test_suggested_questions_are_asked_with_one_click(backend):
    backend.suggested = ["How long is parental leave?", "Who pays for *travel*?"]
    test = press(page(), "Who pays for \\*travel\\*\\?")
    assert [question for question, _ in backend.assistant.asked] == ["Who pays for *travel*?"]
    assert "Parental leave lasts" in shown(test)


def test_a_failure_to_suggest_costs_only_the_suggestions(backend, monkeypatch):
    from glm_rag import suggestions

    def fail(*_arguments):
        raise KnowledgeBaseError("no embedder")

    monkeypatch.setattr(suggestions, "suggest_questions", fail)
    assert "What would you like to know?" in shown(page())


def test_an_answer_comes_with_marks_sources_and_figures(backend):
    html = shown(ask(page(), "How long is parental leave?"))
    assert 'href="#a0-1"' in html
    assert f'<mark id="a0-1">{ui_fakes.QUOTE}</mark>' in html
    assert "first word after 0.8 s" in html
    assert "157 of 2,048 tokens" in html
    assert 'href="document?' in html


def test_marks_stand_behind_sentences_while_the_next_one_is_written(backend):
    from glm_rag_ui.answering import Answering
    from glm_rag_ui.i18n import translator
    from glm_rag_ui.views import turns

    run = Answering(
        ui_fakes.turn("Yes. No"), stream=lambda: iter(()), line=None, owner="a", save=None
    )
    run.citations = (ui_fakes.citation(at=4),)
    html = turns.live(run, translator("en"))
    assert html.index("Yes.") < html.index("gr-cite") < html.index(" No")
    assert "gr-live" in html


def test_a_chinese_question_to_an_english_model_is_warned_about(backend):
    test = ask(page(), "育儿假有多长？")
    assert "This model reads English only" in shown(test)
    assert "This model reads English only" in shown(test.run())
    assert "This model reads English only" not in shown(ask(new(), "How long is the leave?"))


def new():
    """A visit that goes on with none of the conversations before."""
    return press(page(), "New conversation")


def test_a_follow_up_passes_the_last_answer_on(backend):
    test = ask(page(), "How long is parental leave?")
    test = ask(test, "And for part-timers?")
    asked = backend.assistant.asked
    assert [question for question, _ in asked] == [
        "How long is parental leave?",
        "And for part-timers?",
    ]
    assert asked[0][1] is None
    assert asked[1][1] == backend.assistant.result
    assert 'id="a1-1"' in shown(test)
    backend.assistant.result = ui_fakes.answer("Another answer.", citations=())
    ask(ask(test, "And in China?"), "And here?")
    assert asked[3][1] == backend.assistant.result


def test_an_abstention_says_why_and_shows_what_came_closest(backend):
    backend.assistant.result = ui_fakes.abstention()
    html = shown(ask(page(), "Who built the moon?"))
    assert "I found nothing about this" in html
    assert "too far from the question" in html
    assert "(evidence -0.41; 0 is enough)" in html
    assert "Nearest passages" in html


def test_an_error_in_mid_stream_keeps_the_part_that_came(backend):
    backend.assistant.error = ContextWindowError("the prompt has 9,000 tokens: ask less")
    test = ask(page(), "How long?")
    for html in (shown(test), shown(test.run())):
        assert "<p>Parental leave lasts</p>" in html
        assert "What came before is kept" in html
        assert "9,000 tokens" in html


def test_an_unexpected_error_shows_no_traceback(backend):
    backend.assistant.error = RuntimeError("secret")
    backend.assistant.error_after = 0
    test = ask(page(), "How long?")
    for html in (shown(test), shown(test.run())):
        assert "RuntimeError" in html
        assert "secret" not in html


def test_a_failed_turn_is_not_history(backend):
    backend.assistant.error = ContextWindowError("too long")
    test = ask(page(), "first")
    backend.assistant.error = None
    ask(test, "second")
    assert backend.assistant.asked[1][1] is None


def test_an_answer_that_cannot_be_saved_is_shown_and_says_so(backend, monkeypatch):
    def full(*_arguments):
        raise KnowledgeBaseError("the disk is full")

    monkeypatch.setattr(ConversationStore, "save_turn", full)
    html = shown(ask(page(), "How long?"))
    assert "Parental leave lasts" in html
    assert "could not be saved" in html


# ---------------------------------------------------------------- an answer on its way


def test_a_page_that_is_opened_while_an_answer_is_written_shows_all_of_it(backend):
    """As after a reload: the first page is given up, the second one goes on with the answer."""
    backend.assistant.gate, backend.assistant.gate_at = threading.Event(), 3
    seen = []
    first = threading.Thread(target=lambda: seen.append(ask(page(), "How long?")))
    first.start()
    until(lambda: backend.assistant.asked)
    second = threading.Timer(0.7, backend.assistant.gate.set)
    second.start()
    html = shown(page(conversation=only_conversation(backend)))
    assert html.count("Every employee may take up to 16 weeks") >= 1
    first.join(20)
    assert len(backend.assistant.asked) == 1
    assert shown(seen[0])


def test_questions_of_two_visitors_are_answered_at_the_same_time(backend, profile):
    backend.assistant.gate, backend.assistant.gate_at = threading.Event(), 3
    pages = []
    for number, question in enumerate(("first", "second")):
        profile(str(number) * 32)
        visit = threading.Thread(target=lambda text=question: pages.append(ask(page(), text)))
        visit.start()
        until(lambda text=question: text in {run.turn.question for run in running()})
    until(lambda: all(run.turn.text for run in running()))
    assert [(run.owner, run.ahead) for run in running()] == [("0" * 32, 0), ("1" * 32, 0)]
    backend.assistant.gate.set()
    until(lambda: len(pages) == 2)
    for test in pages:
        assert "Every employee may take up to 16 weeks" in shown(test)


def test_a_question_beyond_the_limit_waits_and_is_told_how_many_are_before_it(
    backend, profile, monkeypatch
):
    from glm_rag_ui.i18n import translator
    from glm_rag_ui.views import turns

    monkeypatch.setenv("GLM_RAG_UI__MAX_RUNNING", "1")
    backend.assistant.gate = threading.Event()
    pages = []
    first = threading.Thread(target=lambda: pages.append(ask(page(), "first")))
    first.start()
    until(lambda: backend.assistant.asked)
    second = threading.Thread(target=lambda: pages.append(ask(new(), "second")))
    second.start()
    run = until(lambda: next((r for r in running() if r.turn.question == "second"), None))
    until(lambda: run.ahead == 1)
    assert "1 question before yours" in turns.live(run, translator("en"))
    assert [question for question, _ in backend.assistant.asked] == ["first"]
    backend.assistant.gate.set()
    first.join(20)
    second.join(20)
    assert [question for question, _ in backend.assistant.asked] == ["first", "second"]
    assert len(pages) == 2


def test_when_the_browser_has_gone_the_answer_is_ended_and_what_came_is_kept(backend, monkeypatch):
    from glm_rag_ui import answering, session

    monkeypatch.setattr(answering, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(answering, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(session, "is_connected", lambda: False)
    backend.assistant.delay = 0.15
    test = ask(page(), "How long?")
    html = shown(test)
    assert "Stopped" in html
    assert backend.assistant.closed.is_set()
    turn = stored(backend)[0]
    assert turn.status == "stopped"
    assert ui_fakes.REPLY.startswith(turn.text)
    assert 0 < len(turn.text) < len(ui_fakes.REPLY)


def test_asking_again_ends_the_answer_that_is_still_on_its_way(backend, profile):
    from types import SimpleNamespace

    from glm_rag_ui.views import turns
    from ui_fakes import PROFILE

    backend.assistant.gate = threading.Event()
    first = threading.Thread(target=lambda: ask(page(), "How long?"))
    first.start()
    run = until(lambda: next(iter(running()), None))
    turns.end_from(SimpleNamespace(store=store(backend), profile=PROFILE), run.turn)
    assert run.is_stopping
    assert stored_turns(backend) == ()
    backend.assistant.gate.set()
    first.join(20)
    assert stored_turns(backend) == ()


def stored_turns(backend) -> tuple:
    from ui_fakes import PROFILE

    return tuple(
        turn
        for info in store(backend).list(PROFILE)
        for turn in store(backend).get(PROFILE, info.id).turns
    )


def running() -> list:
    from glm_rag_ui import answering

    return list(answering._all().values())


def until(condition, seconds: float = 15.0):
    """Wait until something is so, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


def store(backend) -> ConversationStore:
    from glm_rag.config import load_config

    return ConversationStore(load_config().home / "conversations.sqlite")


def only_conversation(backend) -> str:
    from ui_fakes import PROFILE

    (info,) = store(backend).list(PROFILE)
    return info.id


def stored(backend):
    from ui_fakes import PROFILE

    return store(backend).get(PROFILE, only_conversation(backend)).turns


def test_a_stopped_answer_keeps_what_came_and_says_so():
    from glm_rag_ui.i18n import translator
    from glm_rag_ui.views import turns

    html = turns.html(ui_fakes.turn("Half of an", status="stopped"), translator("en"))
    assert "Half of an" in html
    assert "incomplete" in html


# ---------------------------------------------------------------- knowledge bases and files


def test_each_knowledge_base_has_its_own_conversation(backend):
    backend.bases["other"] = ui_fakes.FakeKnowledgeBase([ui_fakes.document_info("b.txt")])
    test = ask(page(), "How long?")
    test.selectbox[0].set_value("other").run()
    assert "What would you like to know?" in shown(test)
    assert not address(test, "conversation")
    test.selectbox[0].set_value("handbook").run()
    assert "Parental leave lasts" in shown(test)


def test_the_address_chooses_language_and_knowledge_base(backend):
    backend.bases["other"] = ui_fakes.FakeKnowledgeBase([ui_fakes.document_info("b.txt")])
    test = page(lang="zh", kb="other")
    assert "想了解什么" in shown(test)
    assert test.selectbox[0].value == "other"
    assert test.chat_input[0].placeholder == "向“other”提问"


def test_an_empty_knowledge_base_offers_the_sample_handbook(backend):
    test = page(kb="fresh")
    assert "This knowledge base is empty" in shown(test)
    press(test, "Load the sample handbook")
    assert runs.SHARED.get(load_config().home, "fresh").wait(20)
    assert backend.ingested == [("fresh", [handbook_folder()])]
    assert "What would you like to know?" in shown(test.run())


def test_a_question_to_an_empty_knowledge_base_asks_for_documents(backend):
    test = ask(page(kb="fresh"), "How long?")
    html = shown(test)
    assert "This knowledge base is empty" in html
    assert "There is no document yet" in html
    assert "How long?" in html
    assert not backend.assistant.asked


def test_without_a_model_the_page_guides_to_one(backend):
    backend.model_present = False
    test = page()
    assert "One step before the first question" in shown(test)
    assert test.chat_input[0].disabled


# ---------------------------------------------------------------- safety


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


def test_an_answer_stays_when_another_page_was_looked_at(backend):
    test = ask(page(), "How long?")
    open_page(test, "settings")
    assert "Parental leave lasts" in shown(open_page(test, "chat"))
    assert button(test, "New conversation")


def test_a_question_is_asked_of_what_the_visitor_chose(backend):
    test = ask(page(), "How long is parental leave?")
    language = next(c for c in test.button_group if c.key == "scope-handbook-language")
    ask(language.set_value("en").run(), "How long is parental leave?")
    filters = [settings.retrieval.filter for settings in backend.built]
    assert filters == [None, {"document_language": "en"}]
