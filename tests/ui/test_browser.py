"""The page in a real browser, over the real small model and embedder: one visit from first start.

Run with `pytest -m slow tests/ui`; screenshots land in the test's temporary folder.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import ui_fakes
from glm_rag.samples import handbook_folder
from glm_rag_ui import cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
QUESTION = "How long is parental leave?"
FACT = "Parental leave is 26 weeks"
ANSWER_MS = 300_000
HOSTILE = (
    "# <script>window.hacked = 1</script>\n\n"
    "<img src=x onerror='window.hacked = 1'> ![pixel](http://evil.example/p.png) $x^2$ :smile:\n"
)


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, or a skip that says what is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}: apt-get install chromium fonts-wqy-microhei")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(smollm2, tmp_path_factory):
    """`glm-rag ui` as a user starts it, over an empty data folder; the model is there."""
    home = tmp_path_factory.mktemp("server") / "home"
    port = free_port()
    environment = {"GLM_RAG_HOME": str(home), "GLM_RAG_MODEL__NAME": str(smollm2)}
    with running(command(port), port, environment) as url:
        yield url


def command(port: int) -> list[str]:
    return [sys.executable, "-m", "glm_rag_ui", "--port", str(port)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(server: list[str], port: int, environment: dict[str, str]) -> Iterator[str]:
    """Start a server, wait until it answers, end it with Ctrl-C."""
    environment = {**os.environ, **environment}
    with subprocess.Popen(server, env=environment, process_group=0) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/_stcore/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0, "Ctrl-C ends the server cleanly"


def wait_for(url: str, server: subprocess.Popen, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url) as reply:
            if reply.status == 200:
                return
        time.sleep(0.2)
    pytest.fail("the server did not start")


@pytest.fixture
def visit(browser, address):
    """A fresh visitor; every request of the page is noted."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
    page = context.new_page()
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(f"{address}/?kb=handbook")
    page.get_by_test_id("stChatInputTextArea").wait_for(timeout=60_000)
    yield page
    outside = [
        url for url in page.requests if url.startswith(("http", "ws")) and address[7:] not in url
    ]
    context.close()
    assert not outside, "the page asked for something from elsewhere"


def upload(page, *files) -> None:
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(
        [{"name": name, "mimeType": "text/plain", "buffer": data} for name, data in files]
    )


def ask(page, question: str) -> None:
    page.get_by_test_id("stChatInputTextArea").fill(question)
    page.keyboard.press("Enter")


def test_a_visit_from_the_first_document_to_the_highlighted_sentence(visit, tmp_path):
    page = visit
    page.get_by_text("This knowledge base is empty").wait_for()
    page.screenshot(path=tmp_path / "empty.png")

    sample = handbook_folder()
    files = [(path.name, path.read_bytes()) for path in sorted(sample.iterdir())]
    upload(page, *files, ("broken.pdf", b"%PDF-1.7 torn"), ("evil.md", HOSTILE.encode()))
    page.get_by_test_id("stProgress").wait_for()
    page.get_by_text(f"{len(files) + 1} added · 1 not readable").wait_for(timeout=120_000)
    page.get_by_text(f"{len(files) + 1} documents", exact=True).click()
    page.get_by_text("<script>window.hacked = 1</script>").wait_for()
    page.screenshot(path=tmp_path / "uploaded.png")

    ask(page, QUESTION)
    lengths = watch_growing(page)
    page.screenshot(path=tmp_path / "answer.png")
    assert len(lengths) >= 2, "the answer grows in visible steps"

    page.locator("a.gr-cite").first.hover()
    quote = page.locator("a.gr-cite .gr-pop-quote").first
    quote.wait_for(state="visible")
    page.screenshot(path=tmp_path / "quote.png")
    page.locator("a.gr-cite").first.click()
    page.locator(".gr-passage mark").first.wait_for(state="visible")
    marked = " ".join(" ".join(page.locator(".gr-passage mark").all_inner_texts()).split())
    assert quote.text_content() in marked, "the sentence behind the number is highlighted"
    assert FACT in page.locator(".gr-passage").first.inner_text()
    assert in_view(page, ".gr-passage mark >> nth=0")
    page.mouse.move(900, 780)
    page.screenshot(path=tmp_path / "sources.png")

    page.get_by_test_id("stSidebar").get_by_text("中文").click()
    page.get_by_text("来源").first.wait_for()
    assert "lang=zh" in page.url
    assert FACT in page.locator(".gr-passage").first.text_content()
    page.screenshot(path=tmp_path / "chinese.png")
    assert page.evaluate("window.hacked") is None


def watch_growing(page) -> list[int]:
    """Lengths of the answer while it is written, until its sources are there."""
    lengths: list[int] = []
    end = time.monotonic() + ANSWER_MS / 1000
    sources = page.locator(".gr-sources")
    while not sources.count() and time.monotonic() < end:
        # One look: between two of them the answer may be finished.
        length = page.evaluate("document.querySelector('.gr-live')?.innerText.length ?? 0")
        if length > (lengths[-1] if lengths else 0):
            lengths.append(length)
        page.wait_for_timeout(50)
    sources.first.wait_for(timeout=1000)
    return lengths


SLOW_PAGE = """
import ui_fakes
from glm_rag_ui import app, backend

fake = ui_fakes.FakeBackend(assistant=ui_fakes.FakeAssistant(delay=0.3))
fake.bases["handbook"] = ui_fakes.FakeKnowledgeBase([ui_fakes.document_info("a.txt")])
for name in ("has_model", "list_knowledge_bases", "identity", "open_knowledge_base"):
    setattr(backend, name, getattr(fake, name))
backend.build_assistant = fake.build_assistant
app.main()
"""


@pytest.fixture
def scripted(browser, tmp_path):
    """A short window on a page over a scripted assistant, which answers in five seconds."""
    script = tmp_path / "page.py"
    script.write_text(SLOW_PAGE)
    port = free_port()
    server = cli.server_command("127.0.0.1", port, "handbook", None)
    server[server.index(str(cli.APP))] = str(script)
    tests = str(Path(ui_fakes.__file__).parent)
    with running(server, port, cli.server_environment(os.environ) | {"PYTHONPATH": tests}) as url:
        page = browser.new_page(locale="en-US", viewport={"width": 1000, "height": 500})
        page.goto(url)
        page.get_by_test_id("stChatInputTextArea").wait_for(timeout=60_000)
        yield page
        page.close()


def finished(page) -> None:
    page.locator('.stApp[data-test-script-state="notRunning"]').wait_for(timeout=60_000)
    page.wait_for_timeout(300)


def test_stopping_keeps_what_came(scripted, tmp_path):
    page = scripted
    ask(page, "How long?")
    page.locator(".gr-live").wait_for()
    page.get_by_test_id("stChatInputStopButton").click()
    finished(page)
    page.screenshot(path=tmp_path / "stopped.png")
    page.get_by_test_id("stSidebar").get_by_text("中文").click()
    page.get_by_text("已停止，回答不完整。").wait_for()
    assert ui_fakes.REPLY.startswith(page.locator(".gr-answer").inner_text())


def test_the_page_follows_an_answer_and_a_number_leads_to_its_passage(scripted):
    page = scripted
    for number in range(3):
        ask(page, f"How long is it? {number}")
        page.locator(".gr-live").wait_for()
        finished(page)
        assert in_view(page, ".gr-figures >> nth=-1"), "the end of the answer is in view"
    page.locator("a.gr-cite").first.click()
    page.wait_for_timeout(1500)
    assert in_view(page, ".gr-passage mark >> nth=0"), "also in an answer further up"


def in_view(page, selector: str) -> bool:
    """Whether an element lies between the top of the window and the input line."""
    box = page.locator(selector).bounding_box()
    line = page.get_by_test_id("stChatInput").bounding_box()
    return box["y"] >= 0 and box["y"] + box["height"] <= line["y"]


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 844}, locale="zh-CN")
    page = context.new_page()
    page.goto(f"{address}/?kb=handbook")
    page.get_by_test_id("stChatInputTextArea").wait_for(timeout=60_000)
    page.locator(".gr-hero, .gr-panel").wait_for()
    assert "想了解什么" in page.content() or "这个知识库还是空的" in page.content()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_without_a_model_the_page_guides_to_one(browser, tmp_path):
    port = free_port()
    with running(command(port), port, {"GLM_RAG_HOME": str(tmp_path / "nothing")}) as url:
        page = browser.new_page(locale="en-US")
        page.goto(url)
        page.get_by_text("One step before the first question").wait_for(timeout=60_000)
        assert page.get_by_test_id("stChatInputTextArea").is_disabled()
        page.close()
