"""glm-rag asks a glm-rag server as it asks its own engine: the same question, the same answer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def serving(home):
    """Address of a `glm-rag serve` on a free port, with the model loaded."""
    command = [sys.executable, "-c", "from glm_rag.cli.main import main; main()"]
    with subprocess.Popen(
        [*command, "serve", "--port", "0"],
        env={**os.environ, "GLM_RAG_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            address = process.stdout.readline().split()[2]
            deadline = time.monotonic() + 60
            while httpx.get(address.removesuffix("/v1") + "/readyz").status_code != 200:
                assert time.monotonic() < deadline, "the server never became ready"
                time.sleep(0.1)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(40)


def asked(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_answer_of_our_own_server_is_that_of_our_own_engine(quickstarted):
    pytest.importorskip("glm_rag_server.app")
    made = quickstarted.run("keys", "create", "remote").stdout.strip()
    with serving(quickstarted.home) as address:
        settings = {
            "GLM_RAG_LLM__BACKEND": "openai",
            "GLM_RAG_LLM__BASE_URL": address,
            "GLM_RAG_LLM__API_KEY": made,
            "GLM_RAG_LLM__MODEL": "smollm2-135m",
        }
        question = quickstarted.answer["question"]
        here, there = (
            asked(quickstarted.run("ask", question, "--kb", "handbook", "--json", **changes))
            for changes in ({}, settings)
        )
    assert there["text"] == here["text"]
    assert there["citations"] == here["citations"]
    assert there["usage"]["input_tokens"] == here["usage"]["input_tokens"]
    assert there["usage"]["output_tokens"] > 0
