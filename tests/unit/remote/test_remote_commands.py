"""Every command works with a model at a server as with the one here."""

from __future__ import annotations

import json

import pytest
from langchain_core.documents import Document
from typer.testing import CliRunner

import glm_rag
from glm_rag.build import open_knowledge_base
from glm_rag.cli.main import app
from glm_rag.config import load_config
from glm_rag.errors import ConfigError
from openai_server import openai_server

LEAVE = "Every employee may take up to 16 weeks of paid parental leave."
MENU = "The canteen serves soup on Mondays and fish on Fridays."
QUESTION = "How long is parental leave?"
runner = CliRunner()


@pytest.fixture(params=["chat", "completions"])
def served(request, home, monkeypatch):
    """A knowledge base, and a server that answers from it."""
    documents = [
        Document(page_content=text, metadata={"source": f"file:///{name}", "title": name})
        for name, text in (("leave", LEAVE), ("menu", MENU))
    ]
    with open_knowledge_base(load_config(), create=True) as kb:
        kb.add_documents(documents)
    with openai_server(pieces=["Parental leave is ", "up to 16 weeks", "."]) as server:
        monkeypatch.setenv("GLM_RAG_LLM__BACKEND", "openai")
        monkeypatch.setenv("GLM_RAG_LLM__BASE_URL", server.url)
        monkeypatch.setenv("GLM_RAG_LLM__MODEL", "served")
        monkeypatch.setenv("GLM_RAG_LLM__ENDPOINT", request.param)
        monkeypatch.setenv("GLM_RAG_LLM__MAX_RETRIES", "0")
        yield server


def run(*arguments, stdin=""):
    result = runner.invoke(app, list(arguments), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_ask_cites_and_counts(served):
    answer = json.loads(run("ask", QUESTION, "--json").stdout)
    assert answer["text"] == "Parental leave is up to 16 weeks."
    assert answer["citations"][0]["source"] == "file:///leave"
    assert answer["usage"]["input_tokens"] == 11
    assert answer["usage"]["output_tokens"] == 3
    assert answer["usage"]["cached_tokens"] == 8
    assert answer["finish_reason"] == "stop"
    assert 0 < answer["window"]["size"] == 4096
    prompt = json.dumps(served.requests[-1][1], ensure_ascii=False)
    assert LEAVE in prompt


def test_without_evidence_the_server_is_not_asked(served):
    result = runner.invoke(app, ["ask", "How do I knit a pullover with cables?"])
    assert result.exit_code == 3
    assert served.requests == []


def test_chat_streams_and_a_follow_up_knows_the_round_before(served):
    shown = run("chat", stdin=f"{QUESTION}\nHow long is it for parents in weeks?\n/exit\n").stdout
    assert shown.count("up to 16 weeks") >= 2
    assert "model served" in shown
    said = json.dumps(served.requests[-1][1], ensure_ascii=False)
    assert "Parental leave is up to 16 weeks." in said


def test_python_streams_with_history(served):
    first = glm_rag.ask(QUESTION)
    *pieces, last = glm_rag.stream("And how many weeks of leave is that?", history=first)
    assert "".join(delta.text for delta in pieces) == last.answer.text
    assert last.answer.usage.input_tokens == 11


def test_an_answer_that_loops_is_ended_here(served):
    served.pieces = ["Parental leave is 16 weeks. "] * 500
    answer = glm_rag.ask(QUESTION)
    assert answer.finish_reason == "repetition"
    assert answer.text.count("16 weeks") < 3


def test_eval_asks_the_server_and_writes_no_key(served, tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_RAG_LLM__API_KEY", "very-secret")
    questions = tmp_path / "questions.csv"
    questions.write_text(f"question,answer,source\n{QUESTION},16 weeks,file:///leave\n")
    result = run("eval", str(questions), "--out", str(tmp_path / "out"), "--answers", "--json")
    assert "very-secret" not in result.stdout
    assert served.requests
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or b"very-secret" not in file.read_bytes()


def test_another_model_of_the_server_is_chosen_by_model(served):
    served.model = "larger"
    run("ask", QUESTION, "--model", "larger")
    assert served.requests[-1][1]["model"] == "larger"


def test_doctor_says_what_answers(served):
    result = runner.invoke(app, ["doctor", "--json"])
    [row] = [row for row in json.loads(result.stdout) if row["subject"] == "model"]
    assert row["status"] == "ok"
    assert "4,096 tokens" in row["detail"]
    assert served.url in row["detail"]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("MODEL", "other", "served"),
        ("BASE_URL", "http://127.0.0.1:9/v1", "no language model answers"),
        ("BASE_URL", "nonsense", "llm.base_url"),
        ("TOKENIZER", "/nowhere", "llm.tokenizer"),
    ],
)
def test_doctor_says_what_is_wrong(served, monkeypatch, variable, value, words):
    monkeypatch.setenv(f"GLM_RAG_LLM__{variable}", value)
    result = runner.invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    [row] = [row for row in json.loads(result.stdout) if row["subject"] == "model"]
    assert row["status"] == "error"
    assert words in row["detail"]


def test_what_only_the_engine_can_do_says_so(served):
    for command in (["kb", "warm"], ["ask", QUESTION, "--rerank", "likelihood"]):
        result = runner.invoke(app, command)
        assert isinstance(result.exception, ConfigError)
        assert "llm.backend" in str(result.exception)
