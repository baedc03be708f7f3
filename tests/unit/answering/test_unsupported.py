"""What no passage supports is marked: sentences without a source, numbers that stand nowhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from glm_rag.citations import align
from glm_rag.types import Passage
from glm_rag.unsupported import find_unsupported

EN = "Parental leave is 26 weeks at full pay. It was introduced on 12 May 2021 for all 1,200 staff."
ZH = "育儿假为二十六周，全薪。2021年5月12日起适用于全部1200名员工。"


def passage(text, title="Handbook"):
    return Passage(1, Document(page_content=text, metadata={"title": title}), text, 1)


def marked(answer, text, kind, question="", title="Handbook"):
    passages = [passage(text, title)]
    citations = align(answer, passages, question=question)
    found = find_unsupported(answer, passages, citations, question=question)
    return [answer[item.start : item.end] for item in found if item.kind == kind]


@pytest.mark.parametrize(
    ("answer", "text", "numbers"),
    [
        ("It is 26 weeks.", EN, []),
        ("It is twenty-six weeks.", EN, []),
        ("It is 28 weeks.", EN, ["28"]),
        ("It is 26 days.", EN, ["26"]),
        ("It began on 12 May 2021.", EN, []),
        ("It began on 12 June 2021.", EN, ["June"]),
        ("It began on 13 May 2020 [1].", EN, ["13", "2020"]),
        ("1200 staff have it [1], [2].", EN, []),
        ("1. It is 26 weeks.\n2. It is 30 weeks.", EN, ["30"]),
        ("育儿假为26周。", ZH, []),
        ("育儿假为２８周。", ZH, ["２８"]),
        ("育儿假有二十八周。", ZH, ["二十八"]),
        ("这十分重要。", ZH, []),
        ("育儿假为26周。", EN, []),
        ("育儿假为28周。", EN, ["28"]),
        ("It is 26 weeks.", ZH, []),
    ],
)
def test_numbers_that_stand_in_no_passage_are_marked(answer, text, numbers):
    assert marked(answer, text, "number") == numbers


def test_numbers_of_the_question_and_the_title_are_known():
    assert marked("In 2019 it was 26 weeks.", EN, "number", question="And in 2019?") == []
    assert marked("Rule 17 says 26 weeks.", EN, "number", title="Rule 17") == []


def test_sentences_without_a_source_are_marked_and_cited_ones_are_not():
    answer = "Parental leave is 26 weeks at full pay. The moon is made of green cheese."
    assert marked(answer, EN, "sentence") == ["The moon is made of green cheese."]


@pytest.mark.parametrize("answer", ["Shall I look further?", "[1]", "1.", ""])
def test_what_claims_nothing_is_not_marked(answer):
    assert marked(answer, EN, "sentence") == []


@given(st.text(max_size=200), st.text(max_size=200))
def test_marks_lie_inside_the_answer_in_order_whatever_it_holds(answer, text):
    passages = [passage(text)]
    found = find_unsupported(answer, passages, align(answer, passages))
    assert all(0 <= item.start < item.end <= len(answer) for item in found)
    assert list(found) == sorted(found, key=lambda item: (item.start, item.end))


@given(st.text(max_size=300))
def test_a_passage_repeated_as_the_answer_has_no_strange_number(text):
    passages = [passage(text)]
    found = find_unsupported(text, passages, align(text, passages))
    assert [item for item in found if item.kind == "number"] == []
