"""The evidence panel: the right words are marked, the rest is text."""

import re
from html import unescape
from urllib.parse import parse_qsl

import pytest
from test_ui_render import NASTY, Reader, assert_harmless

import ui_fakes
from glm_rag.types import IngestFailure, IngestReport, PackedContext, Passage
from glm_rag_ui import evidence
from glm_rag_ui.i18n import translator

EN = translator("en")
ZH = translator("zh")


def marked(html: str) -> list[str]:
    parts = re.split("<mark[^>]*>", html)[1:]
    return [Reader(f"<p>{part.split('</mark>')[0]}</p>").text for part in parts]


def test_the_supporting_words_are_highlighted():
    html = evidence.sources(ui_fakes.answer(), "a0", EN)
    assert marked(html) == [
        ui_fakes.QUOTE,
        "The leave can be split into two parts within the first year.",
    ]


def test_offsets_count_in_the_document_not_in_the_passage():
    second = ui_fakes.TEXT.rindex("leave")
    hit = ui_fakes.citation("leave", start=100 + second, end=105 + second)
    assert evidence.quote_spans(ui_fakes.TEXT, 100, [hit]) == [(second, second + 5)]


def test_a_quote_is_found_by_its_words_where_offsets_do_not_fit():
    hit = ui_fakes.citation("weeks", start=9_999, end=10_004)
    begin = ui_fakes.TEXT.index("weeks")
    assert evidence.quote_spans(ui_fakes.TEXT, 100, [hit]) == [(begin, begin + 5)]


def test_a_quote_that_is_not_in_the_passage_marks_nothing():
    hit = ui_fakes.citation("never said", start=0, end=10)
    assert evidence.quote_spans(ui_fakes.TEXT, 100, [hit]) == []
    assert evidence.quote_spans(ui_fakes.TEXT, 100, [ui_fakes.citation("")]) == []


def test_overlapping_quotes_become_one_highlight():
    first = ui_fakes.citation("Every employee may take")
    second = ui_fakes.citation("may take up to 16 weeks")
    spans = evidence.quote_spans(ui_fakes.TEXT, 100, [second, first])
    assert [ui_fakes.TEXT[a:b] for a, b in spans] == ["Every employee may take up to 16 weeks"]


def test_highlighting_changes_no_character():
    html = evidence.highlighted(ui_fakes.TEXT, [(3, 9), (20, 30)])
    assert Reader(html).text == ui_fakes.TEXT


def test_headings_are_bold_and_keep_their_characters():
    text = "## Leave\n\n26 weeks\n#hash"
    html = evidence.highlighted(text, [(3, 18)])
    assert Reader(html).text == text
    assert marked(html) == ["Leave", "26 weeks"]
    assert html.count("<b ") == 1


def test_passages_are_not_folded_when_none_is_cited():
    html = evidence.sources(ui_fakes.answer(citations=()), "a0", EN)
    assert "Passages it read" in html
    assert html.count("<details") == 1


def test_cited_passages_come_first_and_the_others_are_folded():
    html = evidence.sources(ui_fakes.answer(), "a3", EN)
    assert html.index('id="a3-1"') < html.index("Also read, not cited") < html.index('id="a3-2"')


def test_the_panel_names_title_page_headings_and_file():
    text = Reader(evidence.sources(ui_fakes.answer(), "a0", EN)).text
    for part in ("Staff handbook", "page 3", "Working here › Leave", "staff handbook.pdf"):
        assert part in text


def test_a_number_leads_to_the_first_highlight_and_only_there():
    html = evidence.sources(ui_fakes.answer(), "a3", EN)
    assert html.count('id="a3-1"') == 1
    assert f'<mark id="a3-1">{ui_fakes.QUOTE}' in html


def test_what_was_left_out_is_told():
    assert "2 more found" in evidence.sources(ui_fakes.answer(), "a0", EN)


def test_an_answer_without_citations_warns():
    html = evidence.answer(ui_fakes.answer(citations=()), "a0", EN)
    assert "could be matched to a document" in html


def test_an_answer_cut_by_its_limit_says_so():
    html = evidence.answer(ui_fakes.answer(finish_reason="length"), "a0", ZH)
    assert "长度上限" in html


def test_an_answer_that_was_ended_in_a_loop_says_so():
    html = evidence.answer(ui_fakes.answer(finish_reason="repetition"), "a0", EN)
    assert "began to repeat itself" in html


def test_abstention_is_plain_and_shows_the_nearest_passages():
    html = evidence.answer(ui_fakes.abstention(), "a0", EN)
    assert "I found nothing about this" in html
    assert "Nearest passages" in html
    assert "16 weeks of paid" in html
    assert "gr-cite" not in html


def test_abstention_without_neighbours_has_no_panel():
    empty = ui_fakes.abstention()
    html = evidence.nearest((), EN)
    assert html == ""
    assert evidence.sources(empty, "a0", EN) != ""


def link(view: str, **query: str) -> str:
    from urllib.parse import urlencode

    return f"{view}?{urlencode(query)}"


def opened(html: str) -> list[str]:
    return [unescape(found) for found in re.findall('class="gr-open" href="([^"]*)"', html)]


def test_a_cited_passage_opens_at_the_quote_and_a_read_one_at_itself():
    addresses = opened(evidence.answer(ui_fakes.answer(), "a0", EN, link))
    quote = ui_fakes.citation()
    assert [dict(parse_qsl(address.partition("?")[2])) for address in addresses] == [
        {"source": ui_fakes.SOURCE, "start": str(quote.start), "end": str(quote.end)},
        {"source": ui_fakes.SOURCE, "start": "100", "end": "115"},
    ]


def test_nearest_passages_open_in_the_whole_text_too():
    assert len(opened(evidence.answer(ui_fakes.abstention(), "a0", EN, link))) == 1
    assert opened(evidence.answer(ui_fakes.abstention(), "a0", EN)) == []


def test_a_passage_without_a_source_has_no_link():
    document = ui_fakes.document()
    del document.metadata["source"]
    context = PackedContext((Passage(1, document, ui_fakes.TEXT, 9),), 9, 100, 0)
    html = evidence.answer(ui_fakes.answer(context=context, citations=()), "a0", EN, link)
    assert opened(html) == []


@pytest.mark.parametrize("text", NASTY)
def test_hostile_documents_stay_text(text):
    document = ui_fakes.document(text, title=text)
    document.metadata.update(source=text, headings=[text, text])
    passage = Passage(1, document, text, 5, truncated=True)
    hit = ui_fakes.citation(text[3:7], title=text, source=text, start=103, end=107)
    context = PackedContext((passage,), 5, 10, 0)
    assert_harmless(
        evidence.answer(ui_fakes.answer(text, citations=(hit,), context=context), "a", EN, link)
    )
    failure = IngestFailure(text, "load", text, permanent=True)
    assert_harmless(evidence.report(IngestReport(failures=(failure,)), EN))


def test_reasons_are_translated_and_keep_their_detail():
    assert evidence.reason("encrypted: needs a password", ZH) == "有密码保护: needs a password"
    assert evidence.reason("empty", ZH) == "空文件"
    assert evidence.reason("disk is full", ZH) == "disk is full"


def test_long_lists_are_cut_and_say_so():
    failures = [IngestFailure(f"file:///{i}.txt", "load", "empty", True) for i in range(250)]
    html = evidence.failure_list(failures, EN)
    assert html.count("<li>") == 201
    assert "and 50 more" in html


def test_a_report_counts_only_what_happened():
    text = Reader(evidence.report(IngestReport(num_added=2, num_skipped=1), EN)).text
    assert text == "2 added · 1 unchanged"
    again = IngestReport(num_skipped=3, num_failed_before=2)
    assert Reader(evidence.report(again, EN)).text == "1 unchanged · 2 not readable as before"
    assert "Nothing to add" in evidence.report(IngestReport(), EN)
