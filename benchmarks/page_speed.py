"""How fast are the pages, alone and while another browser's answer is being written?

    python benchmarks/page_speed.py [--turns N] [--out FOLDER]

`glm-rag ui` with SmolLM2 loaded and the sample handbook, driven by Chromium. *Switch*: from the
click on a page's name in the menu until the page stands there and its script is done. *Typing*:
from a key pressed in the question line until the letter is seen. Both alone, and while a second
browser's question is answered (answers follow each other without a pause), in turns (A B A B);
medians and the slowest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from support.record import RESULTS, ROOT, print_table, progress, save, warn_if_busy

sys.path.insert(0, str(ROOT / "tests"))
import ui_browser

VIEWS = {
    "knowledge": "Knowledge bases",
    "retrieval": "Retrieval test",
    "settings": "Settings",
    "chat": "Chat",
}
QUESTION = "How long is parental leave?"
LONG_QUESTION = "Tell me everything about leave, sickness and travel, in full detail."
_DRAWN = '.stApp[data-test-script-state="notRunning"]'


def switch(page, view: str) -> float:
    """Seconds until another page stands there."""
    menu = page.get_by_test_id("stSidebar")
    link = menu.get_by_role("link").filter(has_text=VIEWS[view]).first
    link.wait_for()
    start = time.perf_counter()
    link.click()
    page.wait_for_function("title => document.title.startsWith(title)", arg=VIEWS[view])
    page.locator(_DRAWN).wait_for()
    return time.perf_counter() - start


def type_one(page) -> float:
    """Seconds until a letter that was typed is seen."""
    line = ui_browser.question_line(page)
    before = line.input_value()
    start = time.perf_counter()
    page.keyboard.press("a")
    while line.input_value() == before:
        pass
    return time.perf_counter() - start


def measure(page, turns: int, busy: Callable[[], None]) -> dict[str, list[float]]:
    """Seconds of each kind; `busy` is called before each turn."""
    found: dict[str, list[float]] = {f"switch to {view}": [] for view in VIEWS}
    found["typing"] = []
    for _ in range(turns):
        busy()
        for view in VIEWS:
            found[f"switch to {view}"].append(switch(page, view))
        ui_browser.question_line(page).click()
        found["typing"] += [type_one(page) for _ in range(5)]
        ui_browser.question_line(page).fill("")
    return found


def keep_writing(page) -> Callable[[], None]:
    """A visitor whose answers follow each other; called, it asks again if its answer is done."""

    def ask() -> None:
        if page.locator(".gr-live").count() == 0:
            ui_browser.ask(page, LONG_QUESTION)
            page.locator(".gr-live").wait_for(timeout=ui_browser.ANSWER_MS)

    return ask


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5, help="turns of each kind (5)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warn_if_busy()

    import glm_rag
    from glm_rag.config import load_config
    from glm_rag.models.pull import pull
    from glm_rag.samples import handbook_folder

    model = pull("smollm2-135m", models_dir=ROOT / ".cache" / "models")
    alone: dict[str, list[float]] = {}
    beside: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as home, ui_browser.chromium() as browser:
        settings = load_config(overrides={"home": home, "model.name": str(model)})
        glm_rag.ingest([handbook_folder()], kb="handbook", config=settings)
        environment = {
            "GLM_RAG_HOME": home,
            "GLM_RAG_MODEL__NAME": str(model),
            "GLM_RAG_GENERATION__LOOP_GUARD": "false",
            "GLM_RAG_RETRIEVAL__ABSTAIN": "false",
        }
        port = ui_browser.free_port()
        with ui_browser.running(ui_browser.command(port), port, environment) as url:
            page, other = (browser.new_context(locale="en-US").new_page() for _ in range(2))
            for visitor in (page, other):
                visitor.goto(f"{url}/?kb=handbook")
                ui_browser.question_line(visitor).wait_for(timeout=60_000)
            ui_browser.ask(page, QUESTION)  # loads the model
            page.locator(".gr-sources").first.wait_for(timeout=ui_browser.ANSWER_MS)
            measure(page, 1, lambda: None)  # the first time imports what a page needs
            write = keep_writing(other)
            for turn in range(arguments.turns):
                progress(f"turn {turn + 1} of {arguments.turns}")
                for found, busy in ((alone, lambda: None), (beside, write)):
                    if found is alone:
                        other.locator(_DRAWN).wait_for(timeout=ui_browser.ANSWER_MS)
                    for name, seconds in measure(page, 1, busy).items():
                        found.setdefault(name, []).extend(seconds)
    rows = [
        {
            "what": name,
            "alone, median s": round(statistics.median(alone[name]), 3),
            "alone, slowest s": round(max(alone[name]), 3),
            "beside an answer, median s": round(statistics.median(beside[name]), 3),
            "beside an answer, slowest s": round(max(beside[name]), 3),
        }
        for name in alone
    ]
    print_table(rows)
    save(arguments.out, "page_speed", ["streamlit", "playwright", "torch"], {"rows": rows})


if __name__ == "__main__":
    main()
