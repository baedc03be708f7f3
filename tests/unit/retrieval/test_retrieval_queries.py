"""A long pasted question is searched by its sentences, too; any other one as it is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_rag.retrieval.calibration import is_small_talk
from glm_rag.retrieval.queries import queries_of
from glm_rag.text import query_terms

LEAVE = "How many weeks of parental leave may a father take after the birth of twins?"
LAPTOP = "My laptop is four years old, its battery broken: who replaces it, and how soon?"
STORY = "I joined the Berlin office in March 2021 as a part-time accountant in payroll."
MAIL = f"Hello! {STORY} {LEAVE} {LAPTOP} Thanks a lot."
ZH = (
    "您好！我是去年三月加入柏林办公室的兼职会计，平时负责工资核算和差旅报销。"
    "双胞胎出生以后父亲可以休多少周的育儿假？"
    "另外我的笔记本电脑已经用了四年，电池坏了，应该找谁更换，需要等多长时间？谢谢。"
)


def test_a_long_question_is_followed_by_its_sentences_without_the_small_talk():
    assert queries_of(MAIL) == [MAIL, STORY, LEAVE, LAPTOP]
    parts = queries_of(ZH)
    assert parts[0] == ZH
    assert "双胞胎出生以后父亲可以休多少周的育儿假？" in parts
    assert not any(part.startswith("您好") or part == "谢谢。" for part in parts[1:])


def test_two_questions_of_usual_length_are_searched_one_by_one_too():
    first, second = "Who pays hotels in Paris?", "Where do visitors park their cars?"
    both = f"{first} {second}"
    assert queries_of(both) == [both, first, second]
    assert queries_of("员工年假有多少天？出差住宿费用怎么报销？")[1:] == [
        "员工年假有多少天？",
        "出差住宿费用怎么报销？",
    ]


@pytest.mark.parametrize(
    "question",
    [
        "Who pays hotels in Paris? Why?",  # nothing by itself
        "Who pays hotels in Paris?\nAnd where do visitors park their cars?",  # a follow-up
        "Visitors park their cars outside. Who pays hotels in Paris?",  # one question
    ],
)
def test_a_question_that_leans_on_another_is_not_searched_alone(question):
    assert queries_of(question) == [question]


@pytest.mark.parametrize(
    "question", [LEAVE, f"{STORY} {LEAVE}", "双胞胎出生以后父亲可以休多少周的育儿假？", "", "Hi!"]
)
def test_a_question_of_usual_length_is_searched_as_it_is(question):
    assert queries_of(question) == [question]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_question_of_xquad_is_cut(test_data, language):
    data = json.loads((test_data / "xquad" / f"xquad.{language}.json").read_text("utf-8"))["data"]
    questions = [q["question"] for a in data for p in a["paragraphs"] for q in p["qas"]]
    assert len(questions) == 1190
    assert [q for q in questions if queries_of(q) != [q]] == []


def test_a_sentence_without_end_is_cut_at_its_clauses():
    clauses = [f"budget{n} line{n} of department{n} for travel{n} and hotels{n}" for n in range(6)]
    parts = queries_of(", ".join(clauses))
    assert parts[1:] == clauses


def test_the_sentences_that_ask_come_first_where_there_are_too_many():
    filler = [f"Sentence{n} tells{n} long{n} of unrelated{n} matter{n}." for n in range(12)]
    asked = ["Who pays hotels in Paris?", "Where do visitors park their cars?"]
    parts = queries_of(" ".join([*filler, *asked]))
    assert len(parts) == 9
    assert parts[-2:] == asked


@given(st.text(max_size=400))
def test_every_part_asks_something_and_stands_in_the_question(question):
    first, *parts = queries_of(question)
    assert first == question
    assert len(parts) <= 8
    assert len(set(parts)) == len(parts)
    for part in parts:
        assert query_terms(part)
        assert not is_small_talk(part)
        assert set("".join(part.split())) <= set("".join(question.split()))
    assert queries_of(question) == [first, *parts]
