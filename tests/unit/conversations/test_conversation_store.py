"""Conversations: kept over restarts, each profile for itself, whole whatever happens."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest
from talks import answer_to, talk

from glm_rag.conversations import ConversationStore
from glm_rag.errors import ConfigError, KnowledgeBaseError


def test_a_conversation_survives_a_restart_with_everything_a_follow_up_needs(path):
    first = ConversationStore(path)
    conversation_id = talk(first, "How long?", "And for part-timers?", "Who says so?")
    kept = first.get("me", conversation_id)
    first.close()
    again = ConversationStore(path).get("me", conversation_id)
    assert again == kept
    one = answer_to("How long?")
    two = answer_to("And for part-timers?", one)
    three = answer_to("Who says so?", two)
    assert [turn.answer for turn in again.turns] == [one, two, three]
    assert [turn.position for turn in again.turns] == [0, 1, 2]
    assert (again.kb, again.title) == ("handbook", "How long?")
    assert {turn.status for turn in again.turns} == {"done"}


def test_messages_that_answers_repeat_are_kept_once(store, path):
    talk(store, *(f"Question {n}?" for n in range(20)))
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM messages").fetchone() == (40 - 19,)


def test_a_turn_keeps_what_was_streamed_and_why_it_failed(store):
    made = store.start("me", "kb")
    turn = store.add_turn("me", made.id, "How\nlong?", unread=True)
    assert (turn.status, turn.text, turn.position, turn.unread) == ("running", "", 0, True)
    assert store.get("me", made.id).turns == (turn,)
    store.save_turn("me", replace(turn, text="Paren"))
    assert store.get("me", made.id).turns[0].text == "Paren"
    failed = replace(turn, text="Parental", status="failed", error="NaN in layer 3")
    store.save_turn("me", failed)
    assert store.get("me", made.id).turns == (failed,)


def test_the_list_is_newest_first_and_holds_no_conversation_without_a_question(store):
    old, new = talk(store, "Old?"), talk(store, "New?", kb="other")
    store.start("me", "kb")
    assert [info.id for info in store.list("me")] == [new, old]
    assert [info.num_turns for info in store.list("me")] == [1, 1]
    assert [info.id for info in store.list("me", kb="other")] == [new]
    assert [info.id for info in store.list("me", limit=1)] == [new]
    store.add_turn("me", old, "Again?")
    assert [(info.id, info.num_turns) for info in store.list("me")] == [(old, 2), (new, 1)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("parental", True),  # answer
        ("PARENTAL leave", True),
        ("２６ weeks", True),
        ("育儿假", True),
        ("育兒假", True),  # traditional
        ("育儿假 weeks", True),  # question and answer
        ("my title", True),
        ("育儿假 moon", False),
        ("%", False),
        ("_", False),
        ("'; DROP TABLE turns; --", False),
        ("", True),
        ("  ", True),
    ],
)
def test_a_search_finds_titles_questions_and_answers(store, words, found):
    conversation_id = talk(store, "育儿假有多长？")
    store.rename("me", conversation_id, "My Title")
    assert bool(store.list("me", search=words)) is found


def test_the_first_question_is_the_title_until_somebody_chooses_one(store):
    long_id = talk(store, "word " * 60)
    title = store.get("me", long_id).title
    assert len(title) <= 80
    assert title.endswith("…")
    store.cut("me", long_id, 0)
    store.add_turn("me", long_id, " Edited\nquestion? ")
    assert store.get("me", long_id).title == "Edited question?"
    store.rename("me", long_id, " Mine\n")
    store.cut("me", long_id, 0)
    store.add_turn("me", long_id, "Other?")
    assert store.get("me", long_id).title == "Mine"
    with pytest.raises(ConfigError, match="title is empty"):
        store.rename("me", long_id, " \n ")


def test_renaming_does_not_move_a_conversation_to_the_top(store):
    old, new = talk(store, "Old?"), talk(store, "New?")
    store.rename("me", old, "Renamed")
    assert [info.id for info in store.list("me")] == [new, old]


def test_cut_removes_the_end_and_what_only_it_held(store, path):
    conversation_id = talk(store, "Secret one?", "Secret two?", "Secret three?")
    store.cut("me", conversation_id, 1)
    assert [turn.question for turn in store.get("me", conversation_id).turns] == ["Secret one?"]
    assert store.get("me", conversation_id).turns[0].answer == answer_to("Secret one?")
    with sqlite3.connect(path) as raw:
        messages = "".join(m for (m,) in raw.execute("SELECT message FROM messages"))
    assert "one" in messages
    assert "two" not in messages
    turn = store.add_turn("me", conversation_id, "Instead?")
    assert turn.position == 1


def test_what_is_deleted_is_gone_from_the_file(store, path):
    talk(store, "Other?")
    conversation_id = talk(store, "UNMISTAKABLE secret?")
    store.delete("me", conversation_id)
    assert store.get("me", conversation_id) is None
    store.close()
    assert b"UNMISTAKABLE" not in b"".join(file.read_bytes() for file in path.parent.iterdir())


def test_saving_into_what_was_deleted_meanwhile_does_nothing_and_asking_there_is_an_error(store):
    made = store.start("me", "kb")
    turn = store.add_turn("me", made.id, "How long?")
    store.delete("me", made.id)
    store.save_turn("me", replace(turn, text="late", answer=answer_to("How long?")))
    assert store.list("me") == []
    with pytest.raises(KnowledgeBaseError, match="start a new one"):
        store.add_turn("me", made.id, "And now?")


def test_conversations_follow_a_renamed_knowledge_base(store):
    talk(store, "How?", kb="old")
    talk(store, "How?", kb="old", profile="other")
    store.rename_kb("old", "new")
    assert store.list("me", kb="old") == []
    assert len(store.list("me", kb="new")) == len(store.list("other", kb="new")) == 1


def test_what_profiles_remember_follows_a_renamed_knowledge_base(store):
    store.set_preferences("me", {"kb": "old", "thresholds": {"old": 1.5, "b": 2.0}})
    store.set_preferences("other", {"kb": "b", "language": "zh"})
    store.rename_kb("old", "new")
    assert store.preferences("me") == {"kb": "new", "thresholds": {"new": 1.5, "b": 2.0}}
    assert store.preferences("other") == {"kb": "b", "language": "zh"}


def test_conversations_begun_without_a_question_do_not_pile_up(store, monkeypatch):
    left, others = store.start("me", "kb"), store.start("other", "kb")
    monkeypatch.setattr("time.time", lambda: left.created_at + 2 * 24 * 3600)
    store.start("me", "kb")
    assert store.get("me", left.id) is None
    assert store.get("other", others.id) == others
