"""Drives the page in process: what a visitor sees and does."""

from pathlib import Path

import pytest

APP = str(Path(__file__).parents[1] / "ui" / "glm_rag_ui" / "app.py")


def page(view: str = "", **query: str):
    """The page as a new visitor sees it."""
    testing = pytest.importorskip("streamlit.testing.v1")
    test = testing.AppTest.from_file(APP, default_timeout=20)
    for name, value in query.items():
        test.query_params[name] = value
    if not view:
        return test.run()
    # A page of `st.navigation` is known once the first has run.
    chat = test.run()
    return open_page(chat, view, **query)


def open_page(test, view: str, **query: str):
    """Go to another page, as a link does."""
    test._page_hash = test.session_state["pages"][view]._script_hash
    for name, value in query.items():
        test.query_params[name] = value
    return test.run()


def shown(test) -> str:
    """All HTML on the page."""
    assert not test.exception
    return "\n".join(element.proto.body for element in test.get("html"))


def ask(test, question: str):
    """Type a question and send it."""
    return test.chat_input[0].set_value(question).run()


def button(test, label: str):
    """The button of that name, the last one if there are several."""
    return [item for item in test.button if item.label == label][-1]


def press(test, label: str):
    """Click a button."""
    button(test, label).click()
    return test.run()


def links(test) -> list:
    """Links to other pages."""
    return [element.proto for element in test.get("page_link")]


def address(test, name: str) -> str:
    """A parameter of the address; empty where there is none."""
    value = test.query_params.get(name, "")
    return value[0] if isinstance(value, list) else value
