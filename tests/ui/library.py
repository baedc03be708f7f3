"""The page over real knowledge bases: how a test opens it, reads it and works it."""

from __future__ import annotations

from pathlib import Path

from streamlit.testing.v1 import AppTest

from glm_rag.knowledge.base import KnowledgeBase
from glm_rag_ui import runs
from word_embeddings import WordEmbeddings

LEAVE = "# Parental leave\n\nEvery parent may take sixteen weeks of leave with full pay.\n"
CANTEEN = "# Canteen\n\nLunch is served from noon to two on the ground floor.\n"
CHINESE = "# 员工手册\n\n员工每年有二十天带薪年假，未休完的可以结转到次年三月。\n"

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


def source_of(kb: str, ending: str) -> str:
    """The source of a document that ends so."""
    with KnowledgeBase.open(kb, embeddings=WordEmbeddings()) as found:
        return next(s for s in found.known_sources() if s.endswith(ending))


def documents(kb: str) -> int:
    """How many a knowledge base holds."""
    with KnowledgeBase.open(kb, embeddings=WordEmbeddings()) as found:
        return found.info().num_documents


def dialog(test: AppTest, label: str) -> AppTest:
    """Open a dialog by its button."""
    return button(test, label).click().run()


def answer(test: AppTest, text: str, label: str) -> AppTest:
    """Fill the dialog's only field and send it."""
    field = test.text_input[-1]
    field.set_value(text)
    return next(b for b in reversed(test.button) if b.label == label).click().run()


def upload(test: AppTest, *files: tuple[str, bytes]) -> AppTest:
    """Choose files in the picker."""
    test.file_uploader[-1].set_value([(name, data, "text/plain") for name, data in files])
    return test.run()
