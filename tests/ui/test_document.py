"""The page of a document: the right words, no more than a part at once, no file but those known."""

import pytest

import ui_fakes
from glm_rag.types import ExtractedDocument, PageSpan
from ui_driver import button, page, press, shown

pytest.importorskip("streamlit")

SOURCE = "file:///data/rules.md"
EVIL = "<script>alert(1)</script> ![x](http://e.example/p.png) $x$ :smile: \u202etxt"


def put(backend, text: str, *, source: str = SOURCE, pages=(), **changes) -> None:
    title = changes.pop("title", "Rules")
    facts = ("0" * 64, 1234, 0.0, "text/markdown", "1")
    document = ExtractedDocument(source, title, text, *facts, pages)
    backend.bases["handbook"].put(document, **changes)


def open_document(**query: object):
    return page("document", kb="handbook", **{name: str(value) for name, value in query.items()})


def test_the_passage_is_marked_in_the_whole_text(backend):
    text = f"# Rules\n\n{'Some words. ' * 40}\n\nLunch is at noon.\n\nThe end."
    start = text.index("Lunch")
    put(backend, text)
    backend.bases["handbook"].chunks[SOURCE] = [ui_fakes.document(text, start=0)]
    html = shown(open_document(source=SOURCE, start=start, end=start + 17))
    assert '<mark id="passage">Lunch is at noon.</mark>' in html
    assert "Some words." in html
    assert "The end." in html
    for part in ("Rules", "rules.md", "1.2 KB", "English", "Working here › Leave"):
        assert part in html


def test_a_long_document_is_shown_in_parts(backend):
    text = "\n".join(f"line {number}" for number in range(200_000))
    start = text.index("line 100000\n")
    put(backend, text)
    test = open_document(source=SOURCE, start=start, end=start + 11)
    html = shown(test)
    assert len(html) < 200_000
    assert '<mark id="passage">line 100000</mark>' in html
    assert "line 99990\n" in html
    test = press(press(test, "Later"), "Later")
    assert "<mark" not in shown(test)
    assert "line 102500\n" in shown(test)
    assert "<mark" in shown(press(test, "Back to the passage"))
    assert "line 99000\n" in shown(press(test, "Earlier"))


def test_the_ends_of_a_document_are_reached_and_not_passed(backend):
    text = "\n".join(f"line {number}" for number in range(2_500))
    put(backend, text)
    test = open_document(source=SOURCE)
    assert button(test, "Earlier").disabled
    assert "line 0\n" in shown(test)
    while not button(test, "Later").disabled:
        test = press(test, "Later")
    assert "line 2499" in shown(test)


def test_page_breaks_are_shown(backend):
    put(backend, "first page\nsecond page", pages=(PageSpan(1, 0, 11), PageSpan(2, 11, 22)))
    html = shown(open_document(source=SOURCE))
    assert html.index("page 1<") < html.index("first page") < html.index("page 2<")


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ({}, "No document is chosen"),
        ({"source": SOURCE, "start": "x"}, "must be numbers"),
        ({"source": SOURCE, "start": "-5"}, "must be numbers"),
        ({"source": SOURCE, "start": "9", "end": "3"}, "must be numbers"),
        ({"source": SOURCE, "start": "9" * 6000}, "must be numbers"),
        ({"source": SOURCE, "start": "1e3"}, "must be numbers"),
        ({"source": SOURCE, "start": "900", "end": "950"}, "ends before this passage"),
        ({"source": SOURCE, "start": "2", "end": "950"}, "ends before this passage"),
        ({"source": "file:///etc/passwd"}, "holds no such document"),
        ({"source": "/etc/passwd"}, "holds no such document"),
        ({"source": "../../etc/passwd"}, "holds no such document"),
        ({"source": "http://evil.example/"}, "holds no such document"),
    ],
)
def test_a_wrong_address_is_one_clear_line(backend, query, line):
    put(backend, "Lunch is at noon.")
    html = shown(open_document(**query))
    assert line in html
    assert "root:" not in html


def test_an_unknown_knowledge_base_is_one_clear_line(backend):
    html = shown(page("document", kb="nothing", source=SOURCE))
    assert "The knowledge base cannot be used." in html


@pytest.mark.parametrize("text", [EVIL, "x" * 100_000, "\u202b" + "ab" * 50_000])
def test_hostile_documents_are_text(backend, text):
    put(backend, text, title=EVIL, source="file:///data/%3Cimg%20src=x%3E.md")
    html = shown(open_document(source="file:///data/%3Cimg%20src=x%3E.md", start=3, end=60))
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "\u202e" not in html
    assert len(html) < 120_000


def test_a_pdf_shows_its_page_and_turns_it(backend, tmp_path):
    path = pdf(tmp_path, pages=3)
    put_pdf(backend, path)
    test = open_document(source=path.as_uri(), start=12, end=15)
    assert "Page 2 of 3" in shown(test)
    assert len(test.get("image")) == 1
    test = press(test, "Next page")
    assert "Page 3 of 3" in shown(test)
    assert button(test, "Next page").disabled
    assert "Page 2 of 3" in shown(press(test, "Previous page"))


def test_the_page_of_a_file_that_has_gone_or_changed_is_not_shown_and_said_why(backend, tmp_path):
    path = pdf(tmp_path, pages=2)
    put_pdf(backend, path)
    path.write_bytes(path.read_bytes() + b"\n")
    test = open_document(source=path.as_uri())
    assert "has changed since it was read" in shown(test)
    assert not test.get("image")
    path.unlink()
    assert "not where it was read" in shown(test.run())


@pytest.mark.parametrize(("number", "line"), [("99", "no such page"), ("zwei", "Page 1 of 2")])
def test_a_wrong_page_is_one_clear_line_or_the_passages_page(backend, tmp_path, number, line):
    path = pdf(tmp_path, pages=2)
    put_pdf(backend, path)
    assert line in shown(open_document(source=path.as_uri(), page=number))


def pdf(folder, *, pages: int):
    """A file of blank pages."""
    pdfium = pytest.importorskip("pypdfium2")
    document = pdfium.PdfDocument.new()
    for _ in range(pages):
        document.new_page(300, 400)
    path = folder / "blank.pdf"
    document.save(path)
    document.close()
    return path


def put_pdf(backend, path) -> None:
    import hashlib

    data = path.read_bytes()
    put(
        backend,
        "first page\nsecond page\nthird page",
        source=path.as_uri(),
        pages=(PageSpan(1, 0, 11), PageSpan(2, 11, 23), PageSpan(3, 23, 33)),
        media_type="application/pdf",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        mtime=path.stat().st_mtime,
    )
