"""Pictures of every page in Chinese and English, light and dark, wide and narrow.

    python tests/ui/screenshots.py [FOLDER]

Starts `glm-rag ui` over a data folder of its own, with the small model and the sample handbook.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import glm_rag
import ui_browser
from glm_rag.config import load_config
from glm_rag.models.pull import pull
from glm_rag.samples import handbook_folder

MODELS = Path(__file__).parents[2] / ".cache" / "models"
QUESTION = "How long is parental leave?"
WIDTHS = {1280: 800, 390: 844}


def chat(page) -> None:
    """A cited answer, its first passage open."""
    page.locator(".gr-answer").first.wait_for(timeout=30_000)
    page.locator("a.gr-cite").first.click()
    page.wait_for_timeout(2500)


def mark(page) -> None:
    """The sentence behind a number."""
    page.locator("a.gr-cite").first.hover()
    page.wait_for_timeout(800)


def search(page) -> None:
    """A question of the retrieval test."""
    page.locator(".st-key-test-question input").fill(QUESTION)
    page.keyboard.press("Enter")
    page.wait_for_timeout(3000)
    ui_browser.finished(page)


# name: path, query parameters, what to do before the picture
PAGES: dict[str, tuple[str, dict[str, str], Callable | None]] = {
    "empty": ("", {}, None),
    "chat": ("", {"conversation": "{conversation}"}, chat),
    "mark": ("", {"conversation": "{conversation}"}, mark),
    "nothing": ("", {"conversation": "{declined}"}, None),
    "knowledge": ("knowledge", {}, None),
    "document": ("document", {"source": "{source}", "start": "{start}", "end": "{end}"}, None),
    "retrieval": ("retrieval", {}, search),
    "settings": ("settings", {}, None),
}


def main() -> None:
    """Write the pictures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    model = pull("smollm2-135m", models_dir=MODELS)
    with tempfile.TemporaryDirectory() as home, ui_browser.chromium() as browser:
        settings = load_config(overrides={"home": home, "model.name": str(model)})
        glm_rag.ingest([handbook_folder()], kb="handbook", config=settings)
        environment = {"GLM_RAG_HOME": home, "GLM_RAG_MODEL__NAME": str(model)}
        port = ui_browser.free_port()
        server = ui_browser.command(port, "--kb", "handbook")
        with ui_browser.running(server, port, environment) as url:
            state, values = prepared(browser, url)
            for name, page in pictures(browser, url, state, values):
                page.screenshot(path=folder / f"{name}.png")
                print(folder / f"{name}.png")  # noqa: T201


def prepared(browser, url: str) -> tuple[dict, dict[str, str]]:
    """Ask two questions; the cookies of that visitor, and what the addresses need."""
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.goto(f"{url}/?kb=handbook&lang=en")
    values = {}
    for name, question in (("conversation", QUESTION), ("declined", "Who built the moon base?")):
        ui_browser.question_line(page).wait_for(timeout=60_000)
        ui_browser.ask(page, question)
        page.locator(".gr-sources").first.wait_for(timeout=ui_browser.ANSWER_MS)
        ui_browser.finished(page)
        values[name] = page.url.split("conversation=")[1].split("&")[0]
        page.goto(f"{url}/?kb=handbook&lang=en")
    page.goto(f"{url}/?kb=handbook&lang=en&conversation={values['conversation']}")
    link = page.locator('a[href*="document?"]').first
    link.wait_for(state="attached", timeout=30_000)
    values["document"] = link.get_attribute("href")
    state = context.storage_state()
    context.close()
    return state, values


def pictures(browser, url: str, state: dict, values: dict[str, str]) -> Iterator:
    """Each page in each dress, ready for its picture."""
    for width, scheme, language in product(WIDTHS, ("light", "dark"), ("en", "zh")):
        context = browser.new_context(
            viewport={"width": width, "height": WIDTHS[width]},
            color_scheme=scheme,
            locale="zh-CN" if language == "zh" else "en-US",
            storage_state=state,
        )
        for name, (path, query, act) in PAGES.items():
            page = context.new_page()
            if name == "document":
                address = values["document"].replace("lang=en", f"lang={language}")
            else:
                given = "".join(f"&{k}={v.format(**values)}" for k, v in query.items())
                address = f"{path}?kb=handbook&lang={language}{given}"
            page.goto(f"{url}/{address.removeprefix('./')}")
            page.get_by_test_id("stAppViewContainer").wait_for(timeout=60_000)
            page.wait_for_timeout(1500)
            ui_browser.finished(page)
            if act is not None:
                act(page)
            yield f"{name}-{language}-{scheme}-{width}", page
            page.close()
        context.close()


if __name__ == "__main__":
    main()
