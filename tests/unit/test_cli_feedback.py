"""`glm-rag feedback` shows and exports what readers thought."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.conversations import CONVERSATIONS_FILE, ConversationStore


def run(*arguments):
    done = CliRunner().invoke(app, ["feedback", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_without_any_feedback_it_says_so_and_makes_no_file(home):
    assert "No feedback yet" in run()
    assert json.loads(run("--json")) == []
    assert not (home / CONVERSATIONS_FILE).exists()


def test_feedback_is_shown_to_people_and_exported_for_programs(home):
    store = ConversationStore(home / CONVERSATIONS_FILE)
    for kb, vote in (("handbook", "down"), ("other", "up")):
        turn = store.add_turn("me", store.start("me", kb).id, "How long\nis [red]leave?")
        store.set_feedback("me", turn.id, vote, "wrong page")
    store.close()
    shown = run()
    assert "How long is [red]leave?" in shown
    assert "wrong page" in shown
    (row,) = json.loads(run("--kb", "other", "--json"))
    assert (row["kb"], row["vote"], row["question"]) == ("other", "up", "How long\nis [red]leave?")
