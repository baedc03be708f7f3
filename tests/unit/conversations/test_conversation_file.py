"""The file of conversations: who may read it, who shares it, and what damage does."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from talks import TEXT, answer_to, talk

from glm_rag.conversations import ConversationStore
from glm_rag.conversations import owner as owner_module
from glm_rag.errors import ConfigError, GlmRagError, KnowledgeBaseError

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
