"""The page over real knowledge bases: how a test opens it, reads it and works it."""

from __future__ import annotations

from pathlib import Path

from streamlit.testing.v1 import AppTest

from glm_rag_ui import runs

APP = Path(__file__).parents[2] / "ui" / "glm_rag_ui" / "app.py"


def opened(view: str, **query: str) -> AppTest:
    """A page as a visitor sees it who comes with this address."""
    test = AppTest.from_file(str(APP), default_timeout=30)
    for name, value in {"lang": "en", **query}.items():
        test.query_params[name] = value
    test.run()
    # AppTest switches to files only, and our pages are functions.
    test._page_hash = test.session_state["pages"][view]._script_hash
    return test.run()


def shown(test: AppTest) -> str:
    """All HTML on the page."""
    assert not test.exception
    return "\n".join(element.proto.body for element in test.get("html"))


def button(test: AppTest, label: str):
    """The button of this name."""
    return next(item for item in test.button if item.label == label)


def has_button(test: AppTest, label: str) -> bool:
    """Whether there is one, and it can be pressed."""
    return any(item.label == label and not item.disabled for item in test.button)


def part(test: AppTest, name: str) -> AppTest:
    """Another part of the page of a knowledge base."""
    control = next(c for c in test.button_group if c.key and c.key.startswith("kb-section-"))
    return control.set_value(name).run()


def finished(home: Path, kb: str) -> runs.Run:
    """The run into a knowledge base, once it is over."""
    run = runs.SHARED.get(home, kb)
    assert run is not None
    assert run.wait(60)
    return run


def typed(box, text: str):
    """A selectbox with a value that was not among its options."""
    box.options.append(text)  # AppTest knows no new ones
    return box.set_value(text)
