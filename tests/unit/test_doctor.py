"""`glm-rag doctor` tells what collides, what is missing and what would run."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glm_rag.cli.doctor import faiss_finding
from glm_rag.cli.main import app

runner = CliRunner()


@pytest.mark.parametrize(
    ("installed", "status", "words"),
    [
        (["numpy"], "error", "glm-rag[cpu]"),
        (["faiss-cpu"], "ok", "faiss-cpu"),
        (["faiss-cpu", "faiss-gpu"], "error", "overwrite each other"),
        (["faiss-gpu-cu12", "faiss-cpu"], "error", "pip uninstall"),
    ],
)
def test_exactly_one_faiss_build_is_sound(installed, status, words):
    finding = faiss_finding(installed)
    assert finding.status == status
    assert words in finding.detail


def findings(*arguments):
    result = runner.invoke(app, ["doctor", "--json", *arguments])
    return result.exit_code, {row["subject"]: row for row in json.loads(result.stdout)}


def test_a_sound_machine_without_a_model_gets_a_warning_and_exit_code_zero():
    code, rows = findings()
    assert code == 0
    assert rows["faiss"]["status"] == "ok"
    assert rows["model"]["status"] == "warning"
    assert "glm-rag model pull smollm2-135m" in rows["model"]["detail"]


def test_a_data_folder_that_cannot_be_written_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GLM_RAG_HOME", str(tmp_path / "file" / "home"))
    code, rows = findings()
    assert code == 1
    assert "GLM_RAG_HOME" in rows["data folder"]["detail"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs the proc file system")
def test_a_data_folder_on_a_disk_that_takes_nothing_is_an_error_also_for_root(monkeypatch):
    monkeypatch.setenv("GLM_RAG_HOME", "/proc/glm-rag")
    code, rows = findings()
    assert code == 1
    assert "cannot write to /proc" in rows["data folder"]["detail"]


def test_trying_the_data_folder_leaves_nothing_behind(home):
    assert findings()[1]["data folder"]["status"] == "ok"
    assert list(home.iterdir()) == []


def test_a_configured_device_that_is_absent_is_an_error(monkeypatch):
    monkeypatch.setenv("GLM_RAG_MODEL__DEVICE", "cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, rows = findings()
    assert code == 1
    assert "no CUDA device" in rows["device"]["detail"]
