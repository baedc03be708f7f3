"""`kb verify` and `kb rebuild` say what is wrong, and what to do."""

import json

import pytest
from damaged import TEXT, damage
from typer.testing import CliRunner

from glm_rag.cli.main import app


def run(*arguments):
    return CliRunner().invoke(app, ["kb", *arguments])


@pytest.fixture
def on_disk(home, make, monkeypatch, hash_embeddings):
    from glm_rag.knowledge import embedder
    from glm_rag.knowledge.base import KnowledgeBase

    monkeypatch.setattr(embedder, "embeddings_from_name", lambda name: hash_embeddings(name))
    with KnowledgeBase.open("kb", home=home, embeddings=hash_embeddings(), create=True) as kb:
        kb.put_document(*make("a.txt", TEXT))
    return home


def test_verify_says_all_is_well_or_what_to_do(on_disk, open_kb):
    done = run("verify", "kb")
    assert (done.exit_code, "all is as it should be" in done.output) == (0, True)
    assert json.loads(run("verify", "kb", "--json").stdout)["findings"] == []
    damage(open_kb(), "UPDATE totals SET num_terms = 0")
    done = run("verify", "kb")
    assert done.exit_code == 1
    assert "To mend: glm-rag kb rebuild kb" in done.output
    report = json.loads(run("verify", "kb", "--json").stdout)
    assert report["findings"][0]["check"] == "totals"
    assert run("rebuild", "kb").exit_code == 0
    assert run("verify", "kb").exit_code == 0


def test_a_rebuild_that_is_interrupted_says_how_to_go_on(on_disk, monkeypatch):
    from glm_rag.knowledge.base import KnowledgeBase

    def broken_off(self, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(KnowledgeBase, "rebuild", broken_off)
    done = run("rebuild", "kb", "--embed")
    assert done.exit_code == 130
    assert "the old state stays; run the same command to go on" in done.stderr


@pytest.fixture
def answer(tmp_path, on_disk):
    def save(**changes):
        quote = {"source": "a.txt", "start": 0, "end": 32, "quote": TEXT[:32], "chunk_id": "c"}
        file = tmp_path / "answer.json"
        file.write_text(json.dumps({"text": "So.", "citations": [{**quote, **changes}]}))
        return str(file)

    return save


def test_citations_of_other_types_are_no_saved_answer(answer):
    for changes in ({"start": "x"}, {"end": None}, {"quote": 5}, {"source": ["a.txt"]}):
        done = run("verify", "kb", "--answer", answer(**changes))
        assert "is no saved answer: make one with" in str(done.exception)


def test_a_saved_answer_s_citations_open_to_their_quotes(answer):
    done = run("verify", "kb", "--answer", answer())
    assert (done.exit_code, "1 citations checked" in done.output) == (0, True)
    for change in ({"start": 1}, {"quote": "never said"}, {"source": "gone.txt"}):
        done = run("verify", "kb", "--answer", answer(**change), "--json")
        assert done.exit_code == 1
        (finding,) = json.loads(done.stdout)["findings"]
        assert finding["check"] == "citation"


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"citations": [{"source": 1}]}'])
def test_what_is_no_saved_answer_is_refused_in_one_line(on_disk, tmp_path, content):
    file = tmp_path / "answer.json"
    file.write_text(content)
    done = run("verify", "kb", "--answer", str(file))
    assert "is no saved answer" in str(done.exception)


def test_a_citation_of_a_text_with_a_source_of_its_own_opens(kb):
    (key,) = kb.add_texts(["The canteen opens at eight."], [{"source": "menu"}])
    citation = {"source": "menu", "chunk_id": key, "start": 4, "end": 11, "quote": "canteen"}
    assert kb.verify_citations([citation]) == []
    assert len(kb.verify_citations([{**citation, "start": 5}])) == 1
