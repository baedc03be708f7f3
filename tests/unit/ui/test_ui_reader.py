"""Parts of a document: no character lost or doubled, the passage marked, nothing comes to life."""

import re

import pytest
from test_ui_render import NASTY, Reader, assert_harmless

import ui_fakes
from glm_rag.types import ExtractedDocument, PageSpan
from glm_rag_ui import reader
from glm_rag_ui.i18n import translator

EN = translator("en")
TEXTS = [
    "",
    "short",
    "\n".join(f"line {number}" for number in range(9_000)),
    "x" * 100_000,
    "\n" * 50_000,
    ("好" * 2_000 + "\n") * 30,
]


def extracted(text: str, pages=()) -> ExtractedDocument:
    return ExtractedDocument("file:///a", "A", text, "0", 1, 0.0, "text/plain", "1", pages)


@pytest.mark.parametrize("text", TEXTS)
def test_going_forward_shows_every_character_once(text):
    parts, begin = [], 0
    while begin < len(text):
        part = reader.part_from(text, begin)
        assert part[0] == begin
        assert 0 < part[1] - part[0] <= reader.PART
        parts.append(text[slice(*part)])
        begin = part[1]
    assert "".join(parts) == text


@pytest.mark.parametrize("text", TEXTS)
def test_going_back_reaches_the_beginning_without_a_gap(text):
    stop = len(text)
    steps = 0
    while stop > 0:
        part = reader.part_before(text, stop)
        assert part[1] == stop
        assert 0 < part[1] - part[0] <= reader.PART + 600
        stop = part[0]
        steps += 1
    assert steps <= len(text) // (reader.PART - 600) + 1


@pytest.mark.parametrize("start", [0, 5, 700, 11_999, 12_000, 50_000, 71_000])
def test_the_first_part_holds_the_passage(start):
    text = "\n".join(f"line {number}" for number in range(9_000))
    begin, stop = reader.around(text, (start, start + 200))
    assert begin <= start
    assert start + 200 <= stop


@pytest.mark.parametrize("passage", [(-5, 3), (10**9, 10**9 + 5), (0, 10**12)])
def test_any_passage_gives_a_part_inside_the_text(passage):
    begin, stop = reader.around("some text", passage)
    assert 0 <= begin <= stop <= 9


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ({}, reader.Place("")),
        ({"source": "a"}, reader.Place("a")),
        ({"source": "a", "start": "4"}, reader.Place("a", 4, 4)),
        ({"source": "a", "start": "4", "end": "9"}, reader.Place("a", 4, 9)),
        ({"source": "a", "end": "9"}, reader.Place("a", 0, 9)),
        ({"source": "a", "start": "9", "end": "4"}, None),
        ({"source": "a", "start": "-1"}, None),
        ({"source": "a", "start": "one"}, None),
        ({"source": "a", "start": "1" * 5000}, None),
        ({"source": "a", "start": "", "end": ""}, reader.Place("a")),
    ],
)
def test_an_address_names_a_place_or_makes_no_sense(parameters, place):
    assert reader.place(parameters) == place


def test_the_text_reads_back_as_it_was_with_the_page_breaks_between():
    text = "first\n# Head\nsecond"
    pages = (PageSpan(1, 0, 6), PageSpan(2, 6, 19))
    html = reader.text_part(extracted(text, pages), (0, len(text)), (2, 9), EN)
    assert Reader(html).text == "page 1first\npage 2# Head\nsecond"
    assert html.count('id="passage"') == 1
    marks = re.findall("<mark[^>]*>(.*?)</mark>", html, re.DOTALL)
    assert "".join(marks) == "rst# H"


def test_a_part_in_the_middle_of_a_page_says_which_page_it_is():
    pages = (PageSpan(1, 0, 10), PageSpan(2, 10, 30))
    html = reader.text_part(extracted("x" * 30, pages), (15, 20), (0, 0), EN)
    assert "page 2" in html
    assert "<mark" not in html


@pytest.mark.parametrize(("offset", "number"), [(0, 1), (9, 1), (10, 3), (99, 3)])
def test_page_at_is_the_page_that_holds_a_character(offset, number):
    pages = (PageSpan(1, 0, 10), PageSpan(3, 10, 30))
    assert reader.page_at(pages, offset) == number
    assert reader.page_at((), offset) is None


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, ""), (7, "7 B"), (1_234, "1.2 KB"), (35_400, "35.4 KB"), (123_456_789, "123 MB")],
)
def test_sizes_are_short(num_bytes, text):
    assert reader.size(num_bytes) == text


@pytest.mark.parametrize("text", NASTY)
def test_hostile_documents_stay_text(text):
    html = reader.text_part(extracted(text), (0, len(text)), (1, 5), EN)
    assert_harmless(html)
    info = ui_fakes.document_info(text.replace("/", "") or "x")
    assert_harmless(reader.head(info, [text, text], 3, EN))
