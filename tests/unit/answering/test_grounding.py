"""Evidence or silence."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document

from glm_rag.grounding import REFUSAL_SENTENCE, answered_turns, is_refusal, judge, refusal
from glm_rag.types import ChatTurn


def found(evidence: float | None = None, **metadata) -> Document:
    if evidence is not None:
        metadata["evidence"] = evidence
    return Document(page_content="text", metadata=metadata)


def test_nothing_found_is_not_answerable():
    assert not judge([]).answerable
    assert not judge([], abstain=False).answerable


@pytest.mark.parametrize(("evidence", "answerable"), [(-0.01, False), (0.0, True), (2.0, True)])
def test_the_best_passage_decides(evidence, answerable):
    judgement = judge([found(evidence), found(5.0)])
    assert judgement.answerable is answerable
    assert bool(judgement.reason) is not answerable


def test_a_retriever_without_evidence_is_trusted():
    assert judge([found()]).answerable


def test_abstaining_can_be_turned_off():
    assert judge([found(-5.0)], abstain=False).answerable


def test_a_refusal_names_the_nearest_documents_once():
    nearest = [found(title="Handbook", page=3), found(title="Handbook", page=9), found(source="b")]
    assert "“Handbook” (page 3), “b”." in refusal("en", nearest)
    assert "《Handbook》第 3 页、《b》。" in refusal("zh", nearest)
    assert refusal("en", []) != refusal("zh", [])


@pytest.mark.parametrize(
    "said",
    [
        *REFUSAL_SENTENCE.values(),
        " the passages do not answer this question",
        "The passage does not provide any information about the canteen.",
        "资料中未提及这个问题。",
        f"{REFUSAL_SENTENCE['zh']}请换一个问题。",
        *(refusal(language, nearest) for language in ("en", "zh") for nearest in ([], [found()])),
        "I found nothing about this in the documents. See the canteen guide.",
    ],
)
def test_the_refusal_sentence_is_recognised(said):
    assert is_refusal(said)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "26 weeks.",
        "The passages say 26 weeks.",
        "The passage does not name the canteen. It opens at eight.",
    ],
)
def test_an_answer_is_no_refusal(said):
    assert not is_refusal(said)


def test_declined_questions_are_no_part_of_what_the_model_reads():
    answered = [ChatTurn("user", "How long?"), ChatTurn("assistant", "26 weeks.")]
    declined = [ChatTurn("user", "Which capital?"), ChatTurn("assistant", refusal("en", []))]
    assert answered_turns([*declined, *answered, *declined]) == answered
    assert answered_turns(declined[1:]) == []


@pytest.mark.parametrize(("threshold", "answerable"), [(-1.0, True), (0.5, True), (0.6, False)])
def test_the_threshold_moves_what_is_enough_and_the_reason_names_it(threshold, answerable):
    judgement = judge([found(0.5)], threshold=threshold)
    assert judgement.answerable is answerable
    assert ("0.50; 0.6 is enough" in judgement.reason) is not answerable
    assert judge([found(0.5)], threshold=threshold, abstain=False).answerable
