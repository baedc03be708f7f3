"""`glm-rag serve` as a process of its own, for measurements from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

_COMMAND = (sys.executable, "-c", "from glm_rag.cli.main import main; main()")
START_SECONDS, END_SECONDS = 120.0, 60.0


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """One that runs at `address`, without a path."""

    process: subprocess.Popen
    address: str

    def rss(self) -> int:
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def figures(self) -> dict[str, float]:
        """Its metrics by name and labels."""
        text = httpx.get(f"{self.address}/metrics", timeout=30).text
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


@contextlib.contextmanager
def running_server(home: Path, environment: Mapping[str, str]) -> Iterator[ServerProcess]:
    """Start it on a free port, wait until it is ready, end it with SIGTERM.

    Raises:
        RuntimeError: it did not start, or did not end with exit code 0.
    """
    variables = {**os.environ, "GLM_RAG_HOME": str(home), **environment}
    log = home / "server.log"
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [*_COMMAND, "serve", "--port", "0"],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            words = process.stdout.readline().split() if process.stdout else []
            if len(words) < 3:
                raise RuntimeError(f"it did not start: {log.read_text(encoding='utf-8')[-2000:]}")
            address = words[2].removesuffix("/v1")
            _wait_until_ready(address)
            yield ServerProcess(process, address)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(END_SECONDS)
    if code:
        raise RuntimeError(f"it ended with {code}: {log.read_text(encoding='utf-8')[-2000:]}")


def glm_rag(home: Path, *arguments: str) -> None:
    """Run a command in a data folder."""
    variables = {**os.environ, "GLM_RAG_HOME": str(home)}
    subprocess.run([*_COMMAND, *arguments], env=variables, check=True, capture_output=True)


@dataclass(slots=True)
class Streamed:
    """What came of one streamed answer. Seconds from the request; None: there was no text."""

    status: int
    text: str = ""
    first: float | None = None
    seconds: float = 0.0
    tokens: int = 0
    error: str = ""
    retry_after: str = ""
    extension: dict[str, Any] | None = None


def stream_chat(
    client: httpx.Client, body: Mapping[str, Any], *, leave_after: int | None = None
) -> Streamed:
    """Ask for an answer and read it; leave after so many pieces, if a number is given."""
    start = time.perf_counter()
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with client.stream("POST", "/v1/chat/completions", json=asked) as reply:
        result = Streamed(reply.status_code, retry_after=reply.headers.get("retry-after", ""))
        if reply.status_code != 200:
            result.error = reply.read().decode()
            return result
        pieces = 0
        for line in reply.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            data = json.loads(line.removeprefix("data: "))
            _take(result, data, time.perf_counter() - start)
            pieces += bool(data.get("choices"))
            if leave_after is not None and pieces > leave_after:
                break
    result.seconds = time.perf_counter() - start
    return result


def _take(result: Streamed, data: Mapping[str, Any], now: float) -> None:
    if "error" in data:
        result.error = data["error"]["message"]
    if data.get("usage"):
        result.tokens = data["usage"]["completion_tokens"]
    for choice in data.get("choices") or ():
        text = choice["delta"].get("content") or ""
        if text and result.first is None:
            result.first = now
        result.text += text
        if choice["finish_reason"] and data.get("glm_rag"):
            result.extension = data["glm_rag"]


def _wait_until_ready(address: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{address}/readyz", timeout=20).status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError("the server did not become ready")
