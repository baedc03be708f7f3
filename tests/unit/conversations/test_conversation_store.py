"""Conversations: kept over restarts, each profile for itself, whole whatever happens."""

from __future__ import annotations

import inspect
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from langchain_core.documents import Document

from glm_rag.conversations import ConversationStore
from glm_rag.conversations import owner as owner_module
from glm_rag.errors import ConfigError, GlmRagError, KnowledgeBaseError
from glm_rag.types import (
    Answer,
    ChatTurn,
    Citation,
    PackedContext,
    Passage,
    ScoredDocument,
    Usage,
)

TEXT = "Parental leave is 26 weeks."
DOCUMENT = Document(id="c", page_content=TEXT, metadata={"source": "file:///a", "parts": [1]})
PASSAGE = Passage(1, DOCUMENT, TEXT, 7)
CITATION = Citation(1, 0, 27, "c", "file:///a", "Leave", 3, 0, 27, TEXT, "verbatim")


def answer_to(question: str, before: Answer | None = None, text: str = TEXT) -> Answer:
    asked = ChatTurn("user", question, prompt=f"{TEXT}\n{question}", passages=(PASSAGE,))
    said = ChatTurn("assistant", text, (1, 2, 3))
    return Answer(
        text=text,
        citations=(CITATION,),
        context=PackedContext((PASSAGE,), 7, 100, 0),
        usage=Usage(9, 8),
        timings={"total": 1.5},
        finish_reason="stop",
        abstained=False,
        question=question,
        messages=(*(before.messages if before else ()), asked, said),
        nearest=(ScoredDocument(DOCUMENT, 0.5, "dense"),),
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "conversations.sqlite"


@pytest.fixture
def store(path):
    opened = ConversationStore(path)
    yield opened
    opened.close()


def talk(store, *questions, profile="me", kb="handbook"):
    """A conversation of finished turns; returns its id."""
    made = store.start(profile, kb)
    before = None
    for question in questions:
        turn = store.add_turn(profile, made.id, question)
        before = answer_to(question, before)
        store.save_turn(profile, replace(turn, text=before.text, answer=before, status="done"))
    return made.id


# ---------------------------------------------------------------- what is kept


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


# ---------------------------------------------------------------- processes and threads


def run(code: str, path) -> str:
    head = (
        "import sys\nfrom pathlib import Path\n"
        "from glm_rag.conversations import ConversationStore\n"
        "store = ConversationStore(Path(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + code, str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_turn_left_running_by_a_dead_process_reads_as_stopped(store, path):
    made = store.start("me", "kb")
    mine = store.add_turn("me", made.id, "Mine?")
    code = f"turn = store.add_turn('me', {made.id!r}, 'Theirs?')\nimport os\nos._exit(0)"
    run(code, path)
    turns = store.get("me", made.id).turns
    assert [turn.status for turn in turns] == ["running", "stopped"]
    assert turns[0] == mine


def test_a_turn_that_runs_in_another_living_process_reads_as_running(store, path):
    made = store.start("me", "kb")
    store.add_turn("me", made.id, "Mine?")
    seen = run(f"print(store.get('me', {made.id!r}).turns[0].status)", path)
    assert seen == "running"


def test_a_process_id_that_was_given_again_is_not_the_same_process():
    assert owner_module.is_alive(owner_module.me())
    pid, *since = owner_module.me().split()
    if since:
        assert not owner_module.is_alive(" ".join([pid, "1", *since[1:]]))
    assert not owner_module.is_alive("")
    assert not owner_module.is_alive("999999999")


def test_processes_that_make_the_file_at_the_same_time_all_succeed(path):
    code = (
        "made = store.start('me', 'kb')\n"
        "for n in range(5): store.add_turn('me', made.id, f'Question {n}?')\n"
    )
    head = (
        "import sys\nfrom pathlib import Path\n"
        "from glm_rag.conversations import ConversationStore\n"
        "sys.stdin.read()\nstore = ConversationStore(Path(sys.argv[1]))\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", head + code, str(path)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for running in runs:
        running.stdin.close()
    for running in runs:
        error = running.stderr.read()
        running.stderr.close()
        assert (running.wait(60), error) == (0, b"")
    store = ConversationStore(path)
    assert [info.num_turns for info in store.list("me")] == [5] * 4
    store.close()


def test_threads_share_a_store(store):
    made = store.start("me", "kb")
    errors = []

    def work(number):
        try:
            for n in range(20):
                turn = store.add_turn("me", made.id, f"{number}-{n}?")
                store.save_turn("me", replace(turn, text="x", status="done"))
                store.list("me", search="x")
        except GlmRagError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    # A thread that broke off otherwise left fewer.
    positions = [turn.position for turn in store.get("me", made.id).turns]
    assert positions == list(range(80))


# ---------------------------------------------------------------- the file


def test_only_the_owner_may_read_the_file(store, path):
    talk(store, "How long?")
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_a_file_that_was_removed_while_open_is_made_again(store, path):
    talk(store, "Before?")
    for file in list(path.parent.iterdir()):
        file.unlink()
    assert store.list("me") == []
    talk(store, "After?")
    assert [info.title for info in ConversationStore(path).list("me")] == ["After?"]


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_damaged_file_is_one_clear_line(path):
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(KnowledgeBaseError, match="is damaged") as caught:
        ConversationStore(path)
    assert "move it away" in one_line(caught)
    assert path.read_bytes().startswith(b"this is no database")


def test_a_file_of_a_newer_version_is_left_alone(path):
    ConversationStore(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    with pytest.raises(KnowledgeBaseError, match="upgrade glm-rag") as caught:
        ConversationStore(path)
    one_line(caught)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_clear_line(path):
    path.parent.mkdir(mode=0o500)
    with pytest.raises(KnowledgeBaseError, match="owner or mode") as caught:
        ConversationStore(path)
    one_line(caught)


def test_a_folder_in_the_place_of_the_file_is_one_clear_line(path):
    path.mkdir(parents=True)
    with pytest.raises(KnowledgeBaseError, match="GLM_RAG_HOME") as caught:
        ConversationStore(path)
    one_line(caught)


def delete_and_fail(store):
    with store._file.write() as connection:
        connection.execute("DELETE FROM turns")
        1 / 0  # noqa: B018


def test_a_failed_write_leaves_nothing_half_done(store):
    conversation_id = talk(store, "How long?")
    before = store.get("me", conversation_id)
    with pytest.raises(ConfigError):
        store.set_preferences("me", {"a": 1, "b": object()})
    with pytest.raises(ZeroDivisionError):
        delete_and_fail(store)
    assert store.get("me", conversation_id) == before
    assert store.preferences("me") == {}


def test_an_answer_that_cannot_be_read_leaves_its_text(store, path):
    conversation_id = talk(store, "How long?")
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE turns SET answer = '[]'")
    (turn,) = store.get("me", conversation_id).turns
    assert (turn.answer, turn.text) == (None, TEXT)
    store.set_feedback("me", turn.id, "up")
    assert next(store.feedback())["answer"] == TEXT


def test_a_message_that_cannot_be_read_costs_the_history_and_nothing_else(store, path):
    conversation_id = talk(store, "One?", "Two?")
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE messages SET message = '[]' WHERE message LIKE '%Two?%'")
    one, two = store.get("me", conversation_id).turns
    assert one.answer == answer_to("One?")
    assert two.answer == replace(answer_to("Two?"), messages=())


def test_text_that_utf8_cannot_hold_is_kept_as_well_as_can_be(store):
    made = store.start("me", "kb")
    turn = store.add_turn("me", made.id, "a\ud800b\0c")
    store.save_turn("me", replace(turn, text="x\udfff", error="\udc00", status="failed"))
    (kept,) = store.get("me", made.id).turns
    assert (kept.question, kept.text, kept.error) == ("a?b\0c", "x?", "?")
