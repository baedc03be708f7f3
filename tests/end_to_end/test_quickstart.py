"""`glm-rag quickstart` and what a user does after it, on the real small model."""

import json
import socket
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from pytest_socket import SocketBlockedError, disable_socket, enable_socket

import glm_rag
from glm_rag.config import load_config

QUESTION = "How long is parental leave?"


def settings_of(quickstarted):
    return load_config(overrides={"home": quickstarted.home})


def test_quickstart_cites_the_sentence_that_answers(quickstarted):
    answer = quickstarted.answer
    assert not answer["abstained"]
    assert "26 weeks" in answer["text"]
    quotes = [citation["quote"] for citation in answer["citations"]]
    assert "Parental leave is 26 weeks at full pay." in quotes


def test_a_citation_opens_to_its_quote_in_the_stored_text_and_its_file_exists(quickstarted):
    with glm_rag.KnowledgeBase.open("handbook", home=quickstarted.home) as kb:
        for citation in quickstarted.answer["citations"]:
            text = kb.get_text(citation["source"])
            assert text[citation["start"] : citation["end"]] == citation["quote"]
            path = Path(unquote(urlparse(citation["source"]).path))
            assert "26 weeks at full pay" in path.read_text(encoding="utf-8")


def test_a_second_quickstart_adds_nothing_and_answers_the_same(quickstarted):
    done = quickstarted.run("quickstart")
    assert done.returncode == 0
    assert "0 added, 6 unchanged" in done.stdout
    assert "Parental leave is 26 weeks at full pay." in " ".join(done.stdout.split())


def test_a_question_is_answered_with_all_sockets_blocked(quickstarted):
    disable_socket()
    try:
        with pytest.warns(UserWarning, match="socket"), pytest.raises(SocketBlockedError):
            socket.socket()
        answer = glm_rag.ask(QUESTION, kb="handbook", config=settings_of(quickstarted))
    finally:
        enable_socket()
    assert answer.text == quickstarted.answer["text"]
    assert answer.citations


def test_stream_joins_to_what_ask_returns_and_a_follow_up_goes_on(quickstarted):
    settings = settings_of(quickstarted)
    deltas = list(glm_rag.stream(QUESTION, kb="handbook", config=settings))
    answer = deltas[-1].answer
    assert "".join(delta.text for delta in deltas) == answer.text == quickstarted.answer["text"]
    follow_up = glm_rag.ask(
        "And how many days of annual leave?", kb="handbook", history=answer, config=settings
    )
    assert [turn.role for turn in follow_up.messages] == ["user", "assistant"] * 2
    assert follow_up.messages[0].text == QUESTION


async def test_asking_asynchronously_gives_the_same_answer(quickstarted):
    answer = await glm_rag.aask(QUESTION, kb="handbook", config=settings_of(quickstarted))
    assert answer.text == quickstarted.answer["text"]


def test_a_question_without_evidence_is_not_answered_and_exits_with_3(quickstarted):
    done = quickstarted.run(
        "ask", "Who won the chess world championship in 1985?", "--kb", "handbook"
    )
    assert done.returncode == 3
    assert "Kasparov" not in done.stdout
    assert "nearest:" in done.stdout or "nothing" in done.stdout


def test_a_chinese_question_without_evidence_is_declined_in_chinese(quickstarted):
    done = quickstarted.run("ask", "1985年国际象棋世界冠军是谁？", "--kb", "handbook", "--json")
    assert done.returncode == 3
    answer = json.loads(done.stdout)
    assert answer["abstained"]
    assert "文档中" in answer["text"]


def test_chat_keeps_the_conversation_until_told_to_forget(quickstarted):
    done = quickstarted.run(
        "chat", "--kb", "handbook", stdin=f"{QUESTION}\n/new\n{QUESTION}\n/exit\n"
    )
    assert done.returncode == 0
    assert done.stdout.count("Parental leave is 26 weeks at full pay.") == 2


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("How many days of annual leave do full-time employees have?", "27 days"),
        ("育儿假有多长？", "26"),
    ],
)
def test_search_finds_the_passage_in_either_language(quickstarted, question, words):
    done = quickstarted.run("search", question, "--kb", "handbook", "--k", "3", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert 0 < len(found) <= 3
    assert any(words in hit["document"]["text"] for hit in found)


def test_documents_can_be_listed_and_removed_and_the_base_deleted(quickstarted, tmp_path):
    (tmp_path / "note.md").write_text("# Note\n\nThe door code is 4711.", encoding="utf-8")
    assert quickstarted.run("ingest", str(tmp_path), "--kb", "notes").returncode == 0
    listed = json.loads(quickstarted.run("kb", "documents", "--kb", "notes", "--json").stdout)
    assert [document["title"] for document in listed] == ["Note"]
    assert quickstarted.run("kb", "remove", "Note", "--kb", "notes").returncode == 0
    info = json.loads(quickstarted.run("kb", "info", "notes", "--json").stdout)
    assert info["num_documents"] == 0
    names = [row["name"] for row in json.loads(quickstarted.run("kb", "list", "--json").stdout)]
    assert names == ["handbook", "notes"]
    assert quickstarted.run("kb", "delete", "notes", stdin="n\n").returncode != 0
    assert quickstarted.run("kb", "delete", "notes", "--yes").returncode == 0
    names = [row["name"] for row in json.loads(quickstarted.run("kb", "list", "--json").stdout)]
    assert names == ["handbook"]
