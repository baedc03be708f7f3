"""`glm-rag doctor` tells what collides, what is missing and what would run."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.diagnosis import faiss_finding

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


def test_kernels_name_the_backend_its_reason_and_the_compiler(monkeypatch):
    monkeypatch.setenv("GLM_RAG_MODEL__DEVICE", "cpu")
    row = findings()[1]["kernels"]
    assert row["detail"].startswith(("native-avx512: ", "native-avx2: ", "torch: "))
    assert row["status"] == ("warning" if row["detail"].startswith("torch") else "ok")
    assert "compiler" in row["detail"]


def test_a_backend_that_breaks_in_an_unforeseen_way_is_reported_and_not_raised(monkeypatch):
    def broken(device):
        raise RuntimeError("driver gone")

    monkeypatch.setattr("glm_rag.engine.kernels.backend.choose_backend", broken)
    code, rows = findings()
    assert code == 1
    assert rows["kernels"]["detail"] == "RuntimeError: driver gone"


def test_on_cuda_the_report_tells_of_flash_attention(monkeypatch):
    import torch

    from glm_rag.engine.kernels import backend

    found = backend.Backend("triton", "fused", lambda x, weight: x)
    monkeypatch.setattr(
        "glm_rag.engine.placement.choose_device", lambda asked: torch.device("cuda")
    )
    monkeypatch.setattr(backend, "choose_backend", lambda device: found)
    row = findings()[1]["kernels"]
    assert row["status"] == "ok"
    assert "triton: fused; torch with" in row["detail"]
    assert "flash_attn not installed" in row["detail"]


def test_a_configured_milvus_is_asked_and_its_error_is_the_reports(monkeypatch, tmp_path):
    monkeypatch.setenv("GLM_RAG_STORE__BACKEND", "milvus")
    monkeypatch.setenv("GLM_RAG_INGESTION__ENGINE", "ray")
    monkeypatch.setenv("GLM_RAG_STORE__URI", str(tmp_path / "new.db"))
    code, rows = findings()
    assert (code, rows["milvus"]["status"]) == (0, "ok")
    assert "ray" in rows
    assert not (tmp_path / "new.db").exists()
    monkeypatch.setenv("GLM_RAG_STORE__URI", str(tmp_path / "new.txt"))
    code, rows = findings()
    assert code == 1
    assert "store.uri" in rows["milvus"]["detail"]
