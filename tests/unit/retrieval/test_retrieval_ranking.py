"""What reorders a ranking keeps its laws: scores fall, nothing is lost, nothing is invented."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from glm_rag.retrieval.diversity import diverse_order
from glm_rag.retrieval.ranking import Ranked, diversify, merge, reorder


def ranked(name, score, evidence=0.0, vector=(1.0, 0.0)):
    return Ranked(Document(id=name, page_content=name), score, evidence, np.asarray(vector))


def names(found):
    return [item.document.id for item in found]


def directions(angles):
    return [np.array([np.cos(angle), np.sin(angle)]) for angle in angles]


passages = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 3), st.floats(-5, 5)), min_size=1, max_size=12
)


def ranking_of(drawn):
    ordered = sorted(drawn, key=lambda item: -item[0])
    vectors = directions(angle for _, angle, _ in ordered)
    return [
        ranked(str(n), score, evidence, vector)
        for n, ((score, _, evidence), vector) in enumerate(zip(ordered, vectors, strict=True))
    ]


@given(passages, st.floats(0, 1), st.integers(1, 12))
def test_diversity_takes_distinct_passages_best_first_and_scores_never_rise(drawn, d, k):
    found = ranking_of(drawn)
    chosen = diversify(found, d, k)
    assert len(chosen) == len(set(names(chosen))) == min(k, len(found))
    assert names(chosen)[0] == names(found)[0]
    scores = [item.score for item in chosen]
    assert scores == sorted(scores, reverse=True)
    own = {item.document.id: item.score for item in found}
    assert all(item.score <= own[item.document.id] for item in chosen)


@given(passages)
def test_no_difference_asked_for_leaves_the_order(drawn):
    found = ranking_of(drawn)
    assert names(diversify(found, 0.0, len(found))) == names(found)


def test_a_passage_like_the_first_yields_to_another_one():
    scores, vectors = [0.9, 0.89, 0.8], directions([0, 0.01, 1.5])
    assert diverse_order(scores, vectors, 0.0, 2) == [0, 1]
    assert diverse_order(scores, vectors, 0.5, 2) == [0, 2]
    assert diverse_order([], [], 0.5, 2) == []


def test_diversity_follows_the_formula():
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(9, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores, d = sorted(rng.random(9), reverse=True), 0.4
    chosen = diverse_order(scores, list(vectors), d, 9)
    for n in range(1, 9):
        gains = {
            i: (1 - d) * scores[i] - d * max(float(vectors[i] @ vectors[j]) for j in chosen[:n])
            for i in chosen[n:]
        }
        assert chosen[n] == max(gains, key=gains.__getitem__)


@given(passages, st.lists(st.floats(-10, 10), min_size=12, max_size=12), st.integers(0, 12))
def test_a_reranker_moves_the_first_passages_and_no_scores(drawn, given_scores, first):
    found = ranking_of(drawn)
    scores = given_scores[: min(first, len(found))]
    moved = reorder(found, scores)
    assert [item.score for item in moved] == [item.score for item in found]
    assert sorted(names(moved[: len(scores)])) == sorted(names(found[: len(scores)]))
    assert moved[len(scores) :] == found[len(scores) :]
    read = [item.rerank_score for item in moved[: len(scores)]]
    assert read == sorted(scores, reverse=True)


def test_equal_scores_of_a_reranker_change_nothing():
    found = [ranked("a", 0.9), ranked("b", 0.8), ranked("c", 0.7)]
    assert names(reorder(found, [1.0, 1.0, 1.0])) == ["a", "b", "c"]


def test_another_first_passage_is_no_reason_to_decline():
    found = [ranked("a", 0.9, evidence=2.0), ranked("b", 0.8, evidence=-1.0)]
    first, second = reorder(found, [0.0, 1.0])
    assert (first.document.id, first.evidence) == ("b", 2.0)
    assert (second.document.id, second.evidence) == ("a", 2.0)
    assert found[1].evidence == -1.0


def test_what_is_evidence_for_its_query_counts_by_its_share_of_the_best_there():
    one = [ranked("a", 0.9, 2.0), ranked("b", 0.81, 1.0)]
    other = [ranked("c", 0.6, 0.5), ranked("d", 0.54, 0.0), ranked("e", 0.5, -0.01)]
    merged = merge([one, other])
    assert {item.document.id: round(item.score, 6) for item in merged} == {
        "a": 0.9,
        "c": 0.9,  # the first of each query
        "b": 0.81,
        "d": 0.81,
        "e": 0.5,
    }


@pytest.mark.parametrize("evidence", [-0.01, None])
def test_what_is_no_evidence_for_its_query_keeps_its_score(evidence):
    one = [ranked("a", 0.9, 2.0)]
    other = [ranked("c", 0.6, evidence), ranked("d", 0.5, evidence)]
    assert [item.score for item in merge([one, other])] == [0.9, 0.6, 0.5]
    assert merge([[], one]) == one


def test_several_queries_count_with_their_best():
    one = [ranked("a", 0.9, -1.0), ranked("b", 0.5, 1.0)]
    other = [ranked("b", 0.95, 0.5), ranked("c", 0.9, 0.0)]
    merged = merge([one, other])
    assert names(merged) == ["b", "a", "c"]
    assert next((item.score, item.evidence) for item in merged) == (0.95, 1.0)
    assert merge([one]) == one


def test_a_passage_shows_only_the_numbers_it_has():
    plain = Ranked(Document(id="x", page_content="x", metadata={"n": 1}), 0.5)
    assert plain.as_document().document.metadata == {"n": 1, "score": 0.5}
    assert plain.document.metadata == {"n": 1}
