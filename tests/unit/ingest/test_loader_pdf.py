"""A PDF reads page by page, without what every page repeats, and owns up to what it cannot read."""

from __future__ import annotations

import sys
import types

import pytest

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import ocr, pdf
from glm_rag_ingest.loaders.pdf_text import count_words, normalise, without_running_lines

INSTALL = 'OCR is not installed: run pip install "glm-rag[ocr]"'


def test_pdf_pages_are_spans_of_the_text(read, make_pdf, pdf_text):
    first, third = "The first page speaks of rain.", "The third page speaks of snow."
    document = read("a.pdf", make_pdf(pdf_text(first), "", pdf_text(third), title="Weather"))
    assert document.title == "Weather"
    assert [page.number for page in document.pages] == [1, 3]
    assert [document.text[p.start : p.end] for p in document.pages] == [first, third]
    assert document.warnings == ()


def test_a_pdf_page_that_is_a_picture_is_a_warning_and_a_pdf_of_them_has_no_text(
    read, reason_of, make_pdf, pdf_text
):
    picture = "10 10 200 200 re f"
    document = read("a.pdf", make_pdf(pdf_text("A page with enough text."), picture, picture))
    assert document.warnings == (f"pages 2-3: no text layer; {INSTALL}",)
    assert reason_of("b.pdf", make_pdf(picture, f"{picture} {pdf_text('2')}")) == "no_text"
    assert reason_of("c.pdf", make_pdf("")) == "empty"


def test_a_short_page_without_pictures_is_a_page(read, make_pdf, pdf_text):
    document = read("a.pdf", make_pdf(pdf_text("Part II")))
    assert (document.text, document.warnings) == ("Part II", ())


def test_garbled_pdf_pages_are_left_out_and_reported(read, reason_of, make_pdf, pdf_text):
    garbled = pdf_text("".join(f"\\{code:03o}" for code in (1, 2, 3, 4, 5, 6, 14, 15)) * 5)
    document = read("a.pdf", make_pdf(pdf_text("A page with enough text."), garbled))
    assert document.text == "A page with enough text."
    assert document.warnings == (f"page 2: garbled text left out; {INSTALL}",)
    assert reason_of("b.pdf", make_pdf(garbled)) == "garbled"


def test_what_is_no_pdf_is_corrupt(read, reason_of, make_pdf, pdf_text):
    with pytest.raises(DocumentError, match="not a PDF: the file begins with '<html>login"):
        read("a.pdf", b"<html>login page</html>")
    assert reason_of("b.pdf", b"%PDF-1.4\n" + b"x" * 100) == "corrupt"
    assert reason_of("c.pdf", b"") == "empty"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("全 世 界 无 产 者 ， 联 合 起 来 A", "全世界无产者，联合起来 A"),
        ("姓名 部门 电话", "姓名 部门 电话"),
        ("hy\ufffephen and hyphen", "hyphen and hyphen"),
        ("a well\ufffeknown one, well-known", "a well-known one, well-known"),
        ("see GPT\ufffe2 now", "see GPT-2 now"),
        ("em\ufffebeddings", "embeddings"),
        ("a\r\nb", "a\nb"),
        ("e\ufb03cient \u2f08\u2f00", "efficient 人一"),
        (
            "这一行写满了整个版面宽度继\r\n续到下行。\r\n短行",
            "这一行写满了整个版面宽度继续到下行。\n短行",
        ),
        ("第一行到这里结束了一个整句。\r\n第二行", "第一行到这里结束了一个整句。\n第二行"),
    ],
)
def test_what_pdfium_leaves_is_mended(raw, text):
    assert normalise(raw) == text


def test_headers_and_footers_are_kept_once_and_page_numbers_not_at_all():
    pages = [f"ACME handbook 2024\nBody {word}.\n- {7 + i} -" for i, word in enumerate("abcd")]
    kept = without_running_lines(pages)
    assert kept == ["ACME handbook 2024\nBody a.", "Body b.", "Body c.", "Body d."]


def test_headers_that_differ_on_even_and_odd_pages_are_running_lines():
    pages = [f"{'Rules' if i % 2 else 'Acme'} {i}\nBody {i * i + 40}." for i in range(8)]
    kept = without_running_lines(pages)
    assert kept[:2] == pages[:2]
    assert kept[2:] == [f"Body {i * i + 40}." for i in range(2, 8)]


@pytest.mark.parametrize(
    "pages",
    [
        ["Same line\nBody a", "Same line\nBody b"],
        ["Total 312\nBody", "Total 7\nText", "Total 5519\nWords"],
        ["Same", "Same", "Same"],
        ["Draft\na", "Draft\nb", "c\nd", "e\nf", "g\nh", "i\nj", "k\nl"],
        ["", "", ""],
    ],
    ids=["two pages", "numbers that do not count", "nothing else", "few pages", "empty"],
)
def test_what_is_no_running_line_stays(pages):
    assert without_running_lines(pages) == pages


def test_a_number_that_does_not_count_the_pages_stays_beside_the_page_numbers():
    pages = [f"{10 + i}\nText {word}" for i, word in enumerate("abcd")]
    kept = without_running_lines([f"5\nth conference\n{pages[0]}", *pages[1:]])
    assert kept == ["5\nth conference\nText a", "Text b", "Text c", "Text d"]


def test_a_number_that_differs_on_one_page_is_kept_there():
    pages = [f"Total {7 if i == 3 else 5}\nText {word}" for i, word in enumerate("abcdef")]
    assert without_running_lines(pages)[2:4] == ["Text c", "Total 7\nText d"]


@pytest.mark.timeout(20)
def test_a_line_of_one_letter_is_no_trouble():
    pages = [f"{'p' * 190}! {i}\nBody {i * i}" for i in range(5)]
    assert without_running_lines(pages)[4] == "Body 16"


def test_the_whole_document_decides_about_a_hyphen():
    pages = ["a dual\ufffeencoder", "The dual-encoder is a high\ufffely rated one."]
    words = count_words(pages)
    assert [normalise(page, words) for page in pages] == [
        "a dual-encoder",
        "The dual-encoder is a highly rated one.",
    ]


def test_running_lines_are_left_out_of_a_pdf(read, make_pdf, pdf_text):
    pages = [
        pdf_text("Acme Corp", f"Body {word} of the text.", f"Page {i}")
        for i, word in enumerate(("one", "two", "three"), start=1)
    ]
    document = read("a.pdf", make_pdf(*pages))
    bodies = "Body one of the text.\n\nBody two of the text.\n\nBody three of the text."
    assert document.text == f"Acme Corp\n{bodies}"
    spans = [document.text[page.start : page.end] for page in document.pages]
    assert spans[1:] == ["Body two of the text.", "Body three of the text."]


def test_pages_of_cid_codes_are_garbled(reason_of, make_pdf, pdf_text):
    codes = "".join(f"\\(cid:{i}\\)" for i in range(10, 40))
    assert reason_of("a.pdf", make_pdf(pdf_text(codes))) == "garbled"


# ---------------------------------------------------------------- OCR


@pytest.fixture
def recognised(monkeypatch):
    """OCR that finds what it is told to; the list takes one text per page."""
    texts = []
    monkeypatch.setattr(ocr, "why_not", lambda: "")
    monkeypatch.setattr(ocr, "recognise", lambda pixels: texts.pop(0))
    return texts


def test_pages_without_text_are_recognised_and_marked(read, make_pdf, pdf_text, recognised):
    recognised += ["Words in the picture.", ""]
    picture = "10 10 200 200 re f"
    document = read("a.pdf", make_pdf(picture, pdf_text("A page with enough text."), picture))
    assert document.text == "Words in the picture.\n\nA page with enough text."
    assert [page.number for page in document.pages] == [1, 2]
    assert document.warnings == ("page 3: no text layer", "page 1: text recognised by OCR")


def test_ocr_that_finds_less_than_the_text_layer_does_not_replace_it(
    read, make_pdf, pdf_text, recognised
):
    recognised += ["3"]
    text = pdf_text("A page with enough text.")
    document = read("a.pdf", make_pdf(text, f"10 10 200 200 re f {pdf_text('Figure 3: rain')}"))
    assert document.text.endswith("Figure 3: rain")


def test_ocr_that_takes_too_long_says_which_pages_are_missing(
    read, make_pdf, recognised, monkeypatch
):
    recognised += ["First."]
    over = iter([False, True, True])
    monkeypatch.setattr(ocr.Clock, "is_over", lambda self: next(over))
    document = read("a.pdf", make_pdf(*["10 10 200 200 re f"] * 3))
    assert document.text == "First."
    assert "pages 2-3: no text layer; OCR takes more than 200 s" in document.warnings


def test_without_ocr_the_failure_says_how_to_get_it(read, make_pdf):
    with pytest.raises(DocumentError, match=r'^no_text: .* run pip install "glm-rag\[ocr\]"$'):
        read("a.pdf", make_pdf("10 10 200 200 re f"))


def test_ocr_that_cannot_start_says_why(read, make_pdf, monkeypatch):
    monkeypatch.setattr(ocr, "version", lambda: "1.4.4")
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", types.ModuleType("empty"))
    ocr._engine.cache_clear()
    with pytest.raises(DocumentError, match=r"^no_text: .*cannot start \(ImportError: .*headless"):
        read("a.pdf", make_pdf("10 10 200 200 re f"))
    ocr._engine.cache_clear()


def test_a_pdf_is_read_again_when_ocr_is_installed(installed_versions):
    assert installed_versions[pdf].startswith("pdf/")
    assert installed_versions[pdf].endswith(f"-ocr{ocr_version()}")
    assert pdf.VERSION.endswith("-ocr")


def ocr_version():
    import importlib.metadata

    try:
        return importlib.metadata.version("rapidocr-onnxruntime")
    except importlib.metadata.PackageNotFoundError:
        return ""
