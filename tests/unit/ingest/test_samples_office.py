"""The shared test documents of the office formats say what a person sees in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from expectations_office import ABSENT, PHRASES, REASONS, WARNINGS

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import (
    SUPPORTED,
    delimited,
    docx,
    excel,
    image,
    json_lines,
    legacy,
    load,
    notebook,
    odt,
    pdf,
    pptx,
)

LOADERS = (delimited, docx, excel, image, json_lines, legacy, notebook, odt, pdf, pptx)
SUFFIXES = {".csv", ".doc", ".docx", ".odt", ".pdf", ".pptx", ".xlsx"}


@pytest.fixture
def documents(test_data):
    return test_data / "documents"


def test_every_document_of_these_formats_has_its_expectations(documents):
    names = {path.name for path in documents.iterdir() if path.suffix in SUFFIXES}
    assert names == {*PHRASES, *REASONS}


@pytest.mark.parametrize("loader", LOADERS)
def test_every_name_of_a_loader_is_read_and_its_version_begins_with_its_module(loader):
    assert set(loader.SUFFIXES) <= set(SUPPORTED)
    assert loader.VERSION.startswith(loader.__name__.rpartition(".")[2] + "/")


@pytest.mark.parametrize("name", PHRASES)
def test_a_document_says_what_a_person_sees(documents, name):
    (document,) = load(documents / name).documents
    text = " ".join(document.text.split())
    assert [phrase for phrase in PHRASES[name] if phrase not in text] == []
    assert [phrase for phrase in ABSENT.get(name, ()) if f" {phrase} " in f" {text} "] == []
    assert [warning[: len(WARNINGS[name])] for warning in document.warnings] == (
        [WARNINGS[name]] if name in WARNINGS else []
    )


@pytest.mark.parametrize("name", REASONS)
def test_an_unreadable_document_says_why(documents, name, monkeypatch):
    monkeypatch.setattr(legacy, "_converter", lambda: None)
    with pytest.raises(DocumentError) as caught:
        load(documents / name)
    assert str(caught.value).startswith(REASONS[name])


@pytest.mark.parametrize("name", ["markitdown.pptx", "zh-langchain.pdf", "en-multicolumn.pdf"])
def test_page_spans_hold_the_text_of_their_pages(documents, name):
    (document,) = load(documents / name).documents
    numbers = [page.number for page in document.pages]
    assert numbers == list(range(1, len(numbers) + 1))
    texts = [document.text[page.start : page.end] for page in document.pages]
    assert "\n\n".join(texts) == document.text
    last = {
        "markitdown.pptx": (6, "These Test Strings"),
        "zh-langchain.pdf": (8, "[13] GitHub page"),
        "en-multicolumn.pdf": (13, "Thoros of Myr"),
    }
    count, phrase = last[name]
    assert len(numbers) == count
    assert phrase in texts[-1]


def test_a_word_document_of_872_pages_loses_no_paragraph(documents):
    """Every paragraph's words, taken from the XML by other means, stand in the text in order."""
    import html
    import re
    import zipfile

    path = Path(documents / "en-handbook-872p.docx")
    xml = zipfile.ZipFile(path).read("word/document.xml").decode()
    (document,) = load(path).documents
    text = re.sub(r"\W", "", document.text)
    position, missing = 0, []
    for paragraph in re.findall(r"<w:p [^>]*>(?:(?!<w:p ).)*?</w:p>", xml, re.DOTALL):
        words = re.findall(r"<w:t(?: [^>]*)?>([^<]*)</w:t>", paragraph)
        wanted = re.sub(r"\W", "", html.unescape("".join(words)))[:40]
        if len(wanted) < 40 or "footnoteReference" in paragraph:
            continue
        found = text.find(wanted, position)
        if found < 0:
            missing.append(wanted)
        else:
            position = found
    assert missing == []
