"""Numbers agree by value and unit, however they are written."""

from __future__ import annotations

import pytest

from glm_rag.quantities import agree, quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("26 weeks", [("26", "week")]),
        ("twenty-six weeks", [("26", "week")]),
        ("10 working days", [("10", "day")]),
        ("1,000.50 euros", [("1000.5", "euro")]),
        ("five percent", [("5", "%")]),
        ("二十六周", [("26", "周")]),
        ("三百零五人", [("305", "人")]),
        ("一万二千元", [("12000", "元")]),
        ("二〇二五年", [("2025", "年")]),
        ("２０个月", [("20", "月")]),
        ("百货", []),
    ],
)
def test_a_number_has_one_canonical_form(text, expected):
    assert [(q.number, q.unit) for q in quantities(text)] == expected


@pytest.mark.parametrize(
    ("claim", "evidence"),
    [
        ("26 weeks", "twenty-six weeks of leave"),
        ("育儿假26周", "育儿假为二十六周"),
        ("26", "26 weeks"),
        ("one of the parents", "either parent"),
        ("一样的规定", "同样的规定"),
        ("no number", "3 numbers"),
    ],
)
def test_equal_numbers_agree(claim, evidence):
    assert agree(claim, evidence)


@pytest.mark.parametrize(
    ("claim", "evidence"),
    [
        ("16 weeks", "26 weeks"),
        ("26 days", "26 weeks"),
        ("two blocks for 3 days", "two blocks for 3 weeks"),
        ("二十周", "二十六周"),
        ("三天", "三周"),
        ("2024", "2025"),
        ("3.5 %", "3 %"),
    ],
)
def test_other_numbers_or_units_disagree(claim, evidence):
    assert not agree(claim, evidence)


@pytest.mark.parametrize("text", ["十分重要", "十足的把握", "万一下雨", "one of them", "一样"])
def test_words_that_only_look_like_numbers_claim_none(text):
    assert agree(text, "nothing")
