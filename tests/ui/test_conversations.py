"""Conversations on the page: kept, listed, renamed, searched, exported, deleted, changed."""

import re
import time

import pytest

import ui_fakes
from glm_rag.config import load_config
from glm_rag.conversations import ConversationStore
from ui_driver import address, ask, button, links, page, press, shown
from ui_fakes import PROFILE

pytest.importorskip("streamlit")
pytestmark = pytest.mark.usefixtures("backend")

REPLY = "Parental leave lasts"


def store() -> ConversationStore:
    return ConversationStore(load_config().home / "conversations.sqlite")


def conversations() -> list:
    return store().list(PROFILE)


def kept(number: int = 0):
    return store().get(PROFILE, conversations()[number].id)


def titles(test) -> list[str]:
    return [item.label for item in test.button if (item.key or "").startswith("open-")]


def field(test, key: str):
    return next(item for item in [*test.text_input, *test.text_area] if item.key == key)


def by_key(test, key: str):
    return next(item for item in test.button if item.key == key)


# ---------------------------------------------------------------- kept


def test_a_conversation_is_there_after_a_reload(backend):
    test = ask(page(), "How long is parental leave?")
    named = address(test, "conversation")
    again = page(conversation=named)
    html = shown(again)
    assert "How long is parental leave?" in html
    assert f'<mark id="a0-1">{ui_fakes.QUOTE}</mark>' in html
    ask(again, "And for part-timers?")
    assert backend.assistant.asked[1][1] == backend.assistant.result


def test_a_conversation_is_there_after_a_restart_of_the_server():
    import streamlit

    named = address(ask(page(), "How long?"), "conversation")
    streamlit.cache_resource.clear()
    assert REPLY in shown(page(conversation=named))


def test_a_new_conversation_forgets(backend):
    test = press(ask(page(), "How long?"), "New conversation")
    assert "What would you like to know?" in shown(test)
    assert not address(test, "conversation")
    ask(test, "again")
    assert backend.assistant.asked[-1][1] is None
    assert [info.title for info in conversations()] == ["again", "How long?"]


def test_two_profiles_do_not_see_each_other(profile):
    test = ask(page(), "my secret question")
    named = address(test, "conversation")
    profile("f" * 32)
    other = page(conversation=named)
    assert "my secret question" not in shown(other)
    assert "This conversation is not here" in shown(other)
    assert titles(other) == []


@pytest.mark.parametrize("name", ["nonsense", "'; DROP TABLE turns --", "a" * 10_000, "\x00"])
def test_an_unknown_conversation_is_one_line_and_a_new_start(name):
    html = shown(page(conversation=name))
    assert "This conversation is not here" in html
    assert "What would you like to know?" in html


def test_an_address_with_a_conversation_alone_opens_its_knowledge_base(backend):
    backend.bases["another"] = ui_fakes.FakeKnowledgeBase([ui_fakes.document_info("b.txt")])
    named = address(ask(page(kb="handbook"), "How long?"), "conversation")
    store().set_preferences(PROFILE, {"kb": "another"})
    test = page(conversation=named)
    assert REPLY in shown(test)
    assert test.selectbox[0].value == "handbook"


def test_a_turn_of_a_process_that_died_reads_as_stopped(monkeypatch):
    from glm_rag.conversations import rows as module

    monkeypatch.setattr(module, "is_alive", lambda _owner: False)
    made = store().start(PROFILE, "handbook")
    turn = store().add_turn(PROFILE, made.id, "How long?")
    assert turn.status == "running"
    assert "Stopped. The answer is incomplete." in shown(page(conversation=made.id))


def test_an_answer_that_another_process_writes_is_told():
    made = store().start(PROFILE, "handbook")
    store().add_turn(PROFILE, made.id, "How long?")
    assert "written in another window" in shown(page(conversation=made.id))


# ---------------------------------------------------------------- list


def test_conversations_are_listed_newest_first_and_opened_by_a_click():
    test = ask(page(), "first question")
    test = ask(press(test, "New conversation"), "second question")
    assert titles(test) == ["second question", "first question"]
    assert "Today" in shown(test)
    test = press(test, "first question")
    assert "first question" in shown(test)
    assert "second question" not in shown(test)


def test_older_conversations_stand_below_todays(monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3 * 86_400)
    made = store().start(PROFILE, "handbook")
    store().add_turn(PROFILE, made.id, "long ago")
    monkeypatch.setattr(time, "time", lambda: now)
    html = shown(ask(page(), "just now"))
    assert html.index("Today") < html.index("Earlier")


def test_a_long_list_shows_more_on_demand():
    for number in range(35):
        made = store().start(PROFILE, "handbook")
        store().add_turn(PROFILE, made.id, f"question {number}")
    test = page()
    assert len(titles(test)) == 30
    assert len(titles(press(test, "Show more"))) == 35


def test_search_looks_in_titles_questions_and_answers(backend):
    test = ask(page(), "about lunch")
    backend.assistant.result = ui_fakes.answer("The canteen opens at noon.", citations=())
    test = ask(press(test, "New conversation"), "about food")
    assert titles(field(test, "search").set_value("CANTEEN").run()) == ["about food"]
    assert titles(field(test, "search").set_value("lunch").run()) == ["about lunch"]
    nothing = field(test, "search").set_value("zebra").run()
    assert titles(nothing) == []
    assert "Nothing found." in shown(nothing)
    assert len(titles(field(test, "search").set_value("").run())) == 2


def test_a_conversation_is_renamed_and_keeps_its_name():
    test = ask(page(), "How long?")
    by_key(test, "rename").click()
    test.run()
    named = conversations()[0].id
    test = field(test, f"title-{named}").set_value("Leave *rules*").run()
    assert titles(test) == ["Leave \\*rules\\*"]
    assert conversations()[0].title == "Leave *rules*"
    ask(test, "And now?")
    assert conversations()[0].title == "Leave *rules*"


def test_an_empty_name_changes_nothing():
    test = ask(page(), "How long?")
    by_key(test, "rename").click()
    test.run()
    field(test, f"title-{conversations()[0].id}").set_value("   ").run()
    assert conversations()[0].title == "How long?"


def test_deleting_asks_first_and_deletes_only_then():
    test = ask(page(), "How long?")
    by_key(test, "delete").click()
    test.run()
    assert "This cannot be undone." in shown(test)
    assert len(conversations()) == 1
    by_key(test, "confirm").click()
    test.run()
    assert conversations() == []
    assert "What would you like to know?" in shown(test)
    assert not address(test, "conversation")


def test_export_is_markdown_in_which_nothing_comes_to_life(backend):
    evil = "![x](http://e.example/p.png) <script>alert(1)</script> [a](javascript:b)"
    backend.assistant.result = ui_fakes.answer(evil, citations=())
    test = ask(page(), evil)
    text = exported(test)
    assert not re.search(r"(?<!\\)\]\(", text)  # no link and no image
    assert not re.search(r"(?<!\\)<", text)
    assert "e.example" in text


def exported(test) -> str:
    (shown_button,) = [b for b in test.get("download_button") if b.proto.label]
    assert shown_button.proto.label == "Download as Markdown"
    from glm_rag.conversations import to_markdown

    return to_markdown(kept(), "en")


# ---------------------------------------------------------------- again, otherwise, well done


def test_the_last_answer_is_made_again_in_place_of_the_old_one(backend):
    test = ask(ask(page(), "first"), "second")
    backend.assistant.result = ui_fakes.answer("Another answer.", citations=())
    test = press(test, "Answer again")
    asked = backend.assistant.asked
    assert [question for question, _ in asked] == ["first", "second", "second"]
    assert asked[2][1] == asked[1][1]
    assert [turn.text for turn in kept().turns] == [ui_fakes.REPLY, "Another answer."]
    assert "Another answer." in shown(test)


def test_only_the_last_answer_can_be_made_again():
    test = ask(ask(page(), "first"), "second")
    test.run()
    assert [item.label for item in test.button].count("Answer again") == 1


def test_a_question_is_changed_and_what_came_after_it_goes(backend):
    test = ask(ask(page(), "first"), "second")
    turn = kept().turns[0]
    by_key(test, f"change-{turn.id}").click()
    test.run()
    assert field(test, f"question-{turn.id}").value == "first"
    field(test, f"question-{turn.id}").set_value("first, but better")
    test = press(test, "Send")
    assert [turn.question for turn in kept().turns] == ["first, but better"]
    assert backend.assistant.asked[-1] == ("first, but better", None)
    assert conversations()[0].title == "first, but better"
    assert "second" not in shown(test)


def test_an_answer_that_is_not_the_last_any_more_is_not_made_again(backend):
    first = ask(page(), "first")
    named = kept().id
    ask(page(conversation=named), "from another window")
    test = press(first, "Answer again")
    assert [turn.question for turn in kept().turns] == ["first", "from another window"]
    assert "from another window" in shown(test)
    assert "went on in another window" in test.toast[0].value
    assert len(backend.assistant.asked) == 2


def test_a_change_says_what_it_costs_and_costs_no_more_than_that(backend):
    test = ask(ask(page(), "first"), "second")
    turn = kept().turns[0]
    by_key(test, f"change-{turn.id}").click()
    test.run()
    assert "1 later question and its answer are deleted." in shown(test)
    ask(page(conversation=kept().id), "third, from another window")
    test = press(test, "Send")
    assert len(kept().turns) == 3
    assert "2 later questions and their answers are deleted" in shown(test)
    press(test, "Send")
    assert [turn.question for turn in kept().turns] == ["first"]


def test_a_change_can_be_given_up_and_an_empty_one_is_not_sent(backend):
    test = ask(page(), "first")
    turn = kept().turns[0]
    by_key(test, f"change-{turn.id}").click()
    test.run()
    field(test, f"question-{turn.id}").set_value("  ")
    test = press(test, "Send")
    assert len(backend.assistant.asked) == 1
    press(test, "Cancel")
    assert "first" in shown(test)
    assert [turn.question for turn in kept().turns] == ["first"]


def test_feedback_is_kept_with_its_words_and_can_be_taken_back():
    test = ask(page(), "How long?")
    turn = kept().turns[0]
    test = vote(test, turn.id, 0)
    assert kept().turns[0].vote == "down"
    test = field(test, f"words-{turn.id}").set_value("Wrong number.").run()
    assert kept().turns[0].words == "Wrong number."
    assert [item["words"] for item in store().feedback()] == ["Wrong number."]
    vote(test, turn.id, None)
    assert kept().turns[0].vote is None


def vote(test, turn_id: str, value: int | None):
    thumbs = next(item for item in test.feedback if item.key == f"vote-{turn_id}")
    thumbs.set_value(value)
    return test.run()


def test_a_stopped_answer_can_be_made_again_but_not_voted_on(monkeypatch):
    from glm_rag.conversations import rows as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "is_alive", lambda _owner: False)
        made = store().start(PROFILE, "handbook")
        store().add_turn(PROFILE, made.id, "How long?")
        test = page(conversation=made.id)
    assert not test.feedback
    assert REPLY in shown(press(test, "Answer again"))


def test_the_panel_links_to_the_knowledge_base():
    (link,) = [link for link in links(page()) if "2 documents" in link.label]
    assert link.page == "knowledge"


def test_what_is_written_in_chinese_is_chinese():
    test = ask(page(lang="zh"), "育儿假有多长？")
    for label in ("新对话", "重新回答", "修改问题"):
        assert button(test, label)
    assert "今天" in shown(test)
