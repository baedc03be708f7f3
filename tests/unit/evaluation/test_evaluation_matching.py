"""Which passages and documents count as right for a question."""

import pytest

from glm_rag.evaluation.datasets import Question
from glm_rag.evaluation.matching import Paragraph, find_gold
from glm_rag.types import DocumentInfo

LEAVE = (
    "Every parent may take sixteen weeks of parental leave with full pay, and up to ten more weeks "
    "at half of the pay. The leave ends on the third birthday of the child."
)
FOOD = "The canteen on the ground floor serves lunch from noon to two, and nothing on Sundays."
ZH = "员工每年有二十天带薪年假，未休完的可以结转到次年三月。试用期内没有年假。"


def info(source, title="", copies=()):
    return DocumentInfo(
        source, title, "", 1, 0.0, "text/plain", "", "en", 1, 1, 0.0, copies=copies
    )  # fmt: skip


@pytest.mark.parametrize(
    ("paragraph", "passage", "overlaps"),
    [
        (LEAVE, LEAVE, True),
        (LEAVE, LEAVE.upper().replace(" ", "\n"), True),
        (LEAVE, "The leave ends on the third birthday of the child. " + FOOD, True),
        (LEAVE, "sixteen weeks", True),
        (LEAVE, "fifteen weeks", False),
        (LEAVE, FOOD, False),
        (LEAVE, "The leave ends " + FOOD, False),
        (LEAVE, "", False),
        ("", LEAVE, False),
        (ZH, "第三条 未休完的可以结转到次年三月。", True),
        (ZH, "员工每年有三十天带薪病假，其余按事假处理。", False),
    ],
)
def test_a_passage_overlaps_where_a_run_of_its_letters_stands_in_the_paragraph(
    paragraph, passage, overlaps
):
    assert Paragraph(paragraph).overlaps(passage) is overlaps


def test_a_question_with_a_paragraph_wants_that_paragraph_whatever_the_file():
    questions = [
        Question("1", "?", paragraph=LEAVE, group="a"),
        Question("2", "?", paragraph=FOOD, group="a"),
        Question("3", "?", paragraph=ZH, group="b"),
    ]
    leave, food, absent = find_gold(questions, [info("x")], iter([f"# Title\n{LEAVE}\n\n{FOOD}"]))
    assert leave.present
    assert food.present
    assert not absent.present
    assert leave.is_right(LEAVE, "other")
    assert not leave.is_right(FOOD, "x")
    assert leave.is_near(FOOD, "x")  # of the same article
    assert not leave.is_near(ZH, "x")


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("file:///docs/My%20Leave.pdf", True),
        ("file:///docs/my leave.pdf", True),
        ("docs/My Leave.pdf", True),
        ("docs\\My Leave.pdf", True),
        ("my leave.pdf", True),
        ("Parental leave", True),
        ("copy.pdf", True),
        ("Leave.pdf", False),
        ("leave", False),
    ],
)
def test_a_source_is_named_by_uri_title_file_or_the_end_of_its_path(named, found):
    document = info("file:///docs/My%20Leave.pdf", "Parental leave", ("file:///docs/copy.pdf",))
    (gold,) = find_gold([Question("1", "?", source=named)], [document, info("file:///b")], [])
    assert gold.present is found
    assert gold.is_right("anything", document.source) is found
    assert not gold.is_right("anything", "file:///b")


def test_with_an_answer_alone_its_passage_must_hold_it_as_whole_words():
    (gold,) = find_gold([Question("1", "?", answers=("sixteen weeks",))], [], [])
    assert gold.present
    assert gold.is_right(LEAVE, "x")
    assert not gold.is_right(FOOD, "x")


def test_a_question_without_an_answer_has_nothing_right():
    (gold,) = find_gold(
        [Question("1", "?", paragraph=LEAVE, answerable=False)], [info("x")], [LEAVE]
    )
    assert not gold.present
