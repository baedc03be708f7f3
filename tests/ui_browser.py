"""A real browser on a real server: what the browser tests and the screenshots share."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
ANSWER_MS = 300_000


@contextlib.contextmanager
def chromium() -> Iterator:
    """Debian's Chromium under Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


def command(port: int, *options: str) -> list[str]:
    """`glm-rag ui` on a port."""
    return [sys.executable, "-m", "glm_rag_ui", "--port", str(port), *options]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(server: Sequence[str], port: int, environment: Mapping[str, str]) -> Iterator[str]:
    """Start a server, wait until it answers, end it with Ctrl-C."""
    environment = {**os.environ, **environment}
    with subprocess.Popen(server, env=environment) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/_stcore/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, "Ctrl-C ends the server cleanly"


def _wait_for(url: str, server: subprocess.Popen, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url) as reply:
            if reply.status == 200:
                return
        time.sleep(0.2)
    raise AssertionError("the server did not start")


def question_line(page):
    """The line that questions are typed into."""
    return page.get_by_test_id("stChatInputTextArea")


def ask(page, question: str) -> None:
    """Type a question and send it."""
    question_line(page).fill(question)
    page.keyboard.press("Enter")


def finished(page) -> None:
    """Wait until the page has drawn all there is."""
    page.locator('.stApp[data-test-script-state="notRunning"]').wait_for(timeout=ANSWER_MS)
    page.wait_for_timeout(300)
