"""How an answer came about: told in words, spent tokens add up, nothing comes to life."""

import re

import pytest
from test_ui_render import NASTY, Reader, assert_harmless

import ui_fakes
from glm_rag import grounding
from glm_rag.types import WindowReport
from glm_rag_ui import account
from glm_rag_ui.i18n import translator

EN = translator("en")
ZH = translator("zh")
REPORT = WindowReport(2048, 256, 70, 300, (58, 9), 20, 1335, 2, 1, 3)


@pytest.mark.parametrize(
    ("by", "words"), [("rule", "with the question before it"), ("model", "rewritten by the model")]
)
def test_a_rewritten_question_says_what_was_searched_for_and_who_wrote_it(by, words):
    answer = ui_fakes.answer(
        question="And for part-timers?",
        search_question="How long is leave? And for part-timers?",
        trace={"search_question_by": by},
    )
    text = Reader(account.searched(answer, EN)).text
    assert "Searched for: How long is leave? And for part-timers?" in text
    assert words in text


@pytest.mark.parametrize("trace", [{"search_question_by": "as asked"}, {}])
def test_a_question_searched_for_as_it_was_asked_says_nothing(trace):
    answer = ui_fakes.answer(question="q", search_question="other", trace=trace)
    assert account.searched(answer, EN) == ""


def test_every_reason_not_to_answer_is_told_in_both_languages():
    reasons = [
        grounding.judge([]).reason,
        grounding.judge([weak()]).reason,
        "the model gave no answer",
        "the model found no answer in the passages",
    ]
    for reason in reasons:
        answer = ui_fakes.answer(reason=reason, abstained=True)
        assert reason
        assert re.search("[\u4e00-\u9fff]", account.why(answer, ZH))
        assert account.why(answer, EN)[0].isupper()


def weak():
    document = ui_fakes.document()
    document.metadata["evidence"] = -2.0
    return document


def test_an_unknown_reason_is_shown_as_it_is():
    assert account.why(ui_fakes.answer(reason="the moon is full"), ZH) == "the moon is full"


def test_all_tokens_of_the_window_are_in_the_bar_and_the_legend():
    html = account.window(REPORT, EN)
    spent = [int(flex) for flex in re.findall(r"flex:(\d+)", html)]
    assert sum(spent) == REPORT.size
    text = Reader(html).text
    assert "457 of 2,048 tokens" in text
    for part in ("Instructions70", "Conversation300", "Passage 158", "Passage 29", "Question20"):
        assert part in text
    assert "2 earlier rounds left out" in text
    assert "1 earlier round without its passages" in text
    assert "3 passages left out" in text


def test_parts_without_tokens_and_reports_without_a_window_are_left_out():
    html = account.window(WindowReport(100, 20, 10, 0, (), 5, 65), EN)
    assert "Conversation" not in html
    assert "left out" not in html
    assert account.window(None, EN) == ""
    assert account.window(WindowReport(0, 0, 0, 0, (), 0, 0), EN) == ""


@pytest.mark.parametrize("text", NASTY)
def test_hostile_questions_and_reasons_stay_text(text):
    answer = ui_fakes.answer(
        question="q", search_question=text, trace={"search_question_by": "rule"}
    )
    assert_harmless(account.searched(answer, EN))
    assert_harmless(account.window(REPORT, EN))
