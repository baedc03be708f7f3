"""Figures of ranked lists and of answers, against values worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_rag.evaluation.answer_metrics import answer_tokens, contains, exact_match, f1
from glm_rag.evaluation.retrieval_metrics import hit, ndcg, reciprocal_rank

RELEVANCE = st.lists(st.booleans(), max_size=20)
TEXTS = st.text(alphabet="ab 年假二十.,天the ", max_size=20)


def test_ranked_figures_by_hand():
    found = [False, True, False, True]
    assert (hit(found, 1), hit(found, 2)) == (0, 1)
    assert reciprocal_rank(found, 10) == 1 / 2
    assert reciprocal_rank(found, 1) == 0
    gain, best = 1 / math.log2(3) + 1 / math.log2(5), 1 + 1 / math.log2(3)
    assert ndcg(found, 10) == pytest.approx(gain / best)


@given(RELEVANCE)
def test_looking_further_never_loses_a_hit(found):
    hits = [hit(found, k) for k in range(1, 21)]
    assert hits == sorted(hits)
    ranks = [reciprocal_rank(found, k) for k in range(1, 21)]
    assert ranks == sorted(ranks)


@given(RELEVANCE)
def test_ndcg_is_1_for_the_best_order_alone_and_0_without_anything_right(found):
    best = sorted(found, reverse=True)
    assert ndcg(best, 10) == (1 if any(found) else 0)
    assert 0 <= ndcg(found, 20) <= 1
    if found != best:
        assert ndcg(found, 20) < 1


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("The Denver Broncos.", "denver broncos", (1, 1, 1)),
        ("It was the Denver Broncos who won", "Denver Broncos", (0, 2 * 2 / (6 + 2), 1)),
        ("Broncos Denver", "Denver Broncos", (0, 1, 0)),
        ("Carolina", "Denver Broncos", (0, 0, 0)),
        ("$1,200", "1200", (1, 1, 1)),
        ("年假为二十天。", "二十天", (0, 2 * 3 / (6 + 3), 1)),
        ("２０ 天", "20天", (1, 1, 1)),
        ("", "x", (0, 0, 0)),
        ("x", "?", (0, 0, 0)),
    ],
)
def test_answers_by_hand(answer, gold, expected):
    measured = exact_match(answer, [gold]), f1(answer, [gold]), contains(answer, [gold])
    assert measured == pytest.approx(expected)


def test_a_word_is_no_part_of_another_word():
    assert contains("It took 126 weeks", ["26 weeks"]) == 0


def test_the_nearest_of_several_known_answers_counts():
    assert f1("26 weeks", ["half a year", "26 weeks"]) == 1
    assert exact_match("26 weeks", []) == 0


def test_english_is_compared_by_words_and_chinese_by_characters():
    assert answer_tokens("The GLM-2 模型有 an 6B 参数") == [
        "glm2",
        "模",
        "型",
        "有",
        "6b",
        "参",
        "数",
    ]


@given(TEXTS, TEXTS)
def test_f1_is_symmetric_bounded_and_1_for_the_same_text(one, other):
    assert f1(one, [other]) == f1(other, [one])
    assert 0 <= f1(one, [other]) <= 1
    assert f1(one, [one]) == 1
    assert exact_match(one, [other]) <= f1(one, [other])
