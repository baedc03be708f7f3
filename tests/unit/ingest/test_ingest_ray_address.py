"""What is said where no Ray cluster is."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from glm_rag.errors import GlmRagError
from glm_rag_ingest.ray_pipeline import connection

# Ray's words, on the last line of what it writes where none runs.
NONE = (
    "ConnectionError: Could not find any running Ray instance. Please specify the one to connect "
    "to by setting `--address` flag or `RAY_ADDRESS` environment variable."
)


def test_auto_where_no_cluster_runs_says_how_to_start_one_in_our_words(monkeypatch):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 1, b"", f"Traceback\n{NONE}\n".encode())

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(GlmRagError) as caught:
        connection._join(None, "auto")
    said = str(caught.value)
    assert said.startswith("no Ray cluster runs on this machine: start it with `ray start --head`")
    assert "RAY_ADDRESS" not in said


def test_ray_still_says_so_in_these_words():
    ray = importlib.util.find_spec("ray")
    if ray is None or ray.origin is None:
        pytest.skip("Ray is not installed")
    source = Path(ray.origin).with_name("_private") / "services.py"
    assert connection._NONE_HERE in source.read_text(encoding="utf-8")
