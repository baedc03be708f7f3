"""Whose conversations, votes and preferences are whose."""

from __future__ import annotations

import inspect
import sqlite3
from dataclasses import replace

import pytest
from talks import TEXT, answer_to, talk

from glm_rag.conversations import ConversationStore
from glm_rag.errors import ConfigError, KnowledgeBaseError

# ---------------------------------------------------------------- profiles


FOREIGN = {
    "start": lambda store, turn: store.start("thief", "handbook"),
    "list": lambda store, turn: store.list("thief", search="parental"),
    "get": lambda store, turn: store.get("thief", turn.conversation_id),
    "rename": lambda store, turn: store.rename("thief", turn.conversation_id, "Stolen"),
    "delete": lambda store, turn: store.delete("thief", turn.conversation_id),
    "add_turn": lambda store, turn: store.add_turn("thief", turn.conversation_id, "Mine?"),
    "save_turn": lambda store, turn: store.save_turn(
        "thief", replace(turn, text="Stolen", answer=answer_to("Stolen?"))
    ),
    "cut": lambda store, turn: store.cut("thief", turn.conversation_id, 0),
    "set_feedback": lambda store, turn: store.set_feedback("thief", turn.id, "down", "bad"),
    "preferences": lambda store, turn: store.preferences("thief"),
    "set_preferences": lambda store, turn: store.set_preferences("thief", {"language": None}),
}


def everything(path):
    """All rows but those of the thief."""
    with sqlite3.connect(path) as raw:
        return [
            raw.execute("SELECT * FROM conversations WHERE profile <> 'thief'").fetchall(),
            raw.execute("SELECT * FROM turns").fetchall(),
            raw.execute("SELECT * FROM messages").fetchall(),
            raw.execute("SELECT * FROM preferences WHERE profile <> 'thief'").fetchall(),
        ]


def test_every_method_with_a_profile_is_tried_by_a_thief():
    methods = inspect.getmembers(ConversationStore, inspect.isfunction)
    assert {n for n, m in methods if "profile" in inspect.signature(m).parameters} == set(FOREIGN)


@pytest.mark.parametrize("method", FOREIGN)
def test_a_profile_neither_sees_nor_changes_what_is_anothers(store, path, method):
    conversation_id = talk(store, "How long?")
    store.set_preferences("me", {"language": "zh"})
    before = everything(path)
    (turn,) = store.get("me", conversation_id).turns
    if method == "add_turn":
        with pytest.raises(KnowledgeBaseError):
            FOREIGN[method](store, turn)
    elif method == "start":
        assert FOREIGN[method](store, turn).turns == ()
    else:
        assert not FOREIGN[method](store, turn)
    assert everything(path) == before


def test_a_turn_of_another_conversation_of_ones_own_is_left_alone(store):
    one, two = talk(store, "One?"), talk(store, "Two?")
    (turn,) = store.get("me", one).turns
    store.save_turn("me", replace(turn, conversation_id=two, text="mixed up"))
    assert store.get("me", one).turns == (turn,)


# ---------------------------------------------------------------- feedback and preferences


def test_feedback_is_kept_with_the_answer_changed_and_taken_back(store):
    conversation_id = talk(store, "How long?")
    (turn,) = store.get("me", conversation_id).turns
    store.set_feedback("me", turn.id, "down", " wrong page ")
    (voted,) = store.get("me", conversation_id).turns
    assert (voted.vote, voted.words) == ("down", "wrong page")
    store.save_turn("me", turn)  # saved from an older copy
    assert store.get("me", conversation_id).turns == (voted,)
    store.set_feedback("me", turn.id, None, "words without a vote")
    assert store.get("me", conversation_id).turns == (turn,)
    with pytest.raises(ConfigError, match="up, down or None"):
        store.set_feedback("me", turn.id, "sideways")


def test_exported_feedback_holds_question_answer_and_sources_but_nobodys_name(store):
    for kb in ("a", "b"):
        conversation_id = talk(store, "How long?", "Really?", kb=kb, profile="secret-profile")
        store.set_feedback(
            "secret-profile", store.get("secret-profile", conversation_id).turns[0].id, "up", "thx"
        )
    rows = list(store.feedback())
    assert [row["kb"] for row in rows] == ["a", "b"]
    assert list(store.feedback(kb="b")) == rows[1:]
    row = rows[0]
    assert set(row) == {"question", "answer", "citations", "vote", "words", "kb", "asked_at"}
    assert (row["question"], row["answer"], row["vote"]) == ("How long?", TEXT, "up")
    assert row["citations"][0]["quote"] == TEXT
    assert row["asked_at"].endswith("+00:00")
    assert "secret-profile" not in repr(rows)


def test_feedback_may_be_read_while_others_vote(store):
    for n in range(3):
        conversation_id = talk(store, f"Question {n}?")
        store.set_feedback("me", store.get("me", conversation_id).turns[0].id, "up")
    rows = store.feedback()
    next(rows)
    talk(store, "Meanwhile?")
    store.set_feedback("me", store.get("me", conversation_id).turns[0].id, None)
    assert [row["question"] for row in rows] == ["Question 1?"]


def test_preferences_are_merged_and_none_removes(store):
    store.set_preferences("me", {"language": "zh", "theme": "dark", "k": 3})
    store.set_preferences("me", {"language": "en", "theme": None, "nested": {"a": [1, None]}})
    assert store.preferences("me") == {"language": "en", "k": 3, "nested": {"a": [1, None]}}
    assert store.preferences("other") == {}
