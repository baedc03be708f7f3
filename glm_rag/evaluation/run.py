"""Ask every question and measure what comes back."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from glm_rag.evaluation.answer_metrics import contains, exact_match, f1
from glm_rag.evaluation.datasets import Question
from glm_rag.evaluation.matching import Gold
from glm_rag.evaluation.outcome import AnswerOutcome, Evidence, Outcome
from glm_rag.text import detect_language
from glm_rag.types import Answer, Citation, Language

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    from glm_rag.assistant import Assistant

# Passages looked at: enough to look past the paragraphs of one article.
DEPTH = 20


def ask_all(
    questions: Sequence[Question],
    golds: Sequence[Gold],
    retriever: BaseRetriever,
    *,
    assistant: Assistant | None = None,
    thresholds: Mapping[Language, float] | None = None,
) -> Iterator[Outcome]:
    """The outcome of each question, in order.

    Args:
        retriever: finds `DEPTH` passages, or as many as shall be looked at.
        assistant: answers too; None measures retrieval alone.
        thresholds: logit at which a margin is 0, by question language, where there is a
            calibration: turns margins into probabilities.
    """
    for question, gold in zip(questions, golds, strict=True):
        start = time.perf_counter()
        found = retriever.invoke(question.text)
        timings = {"search": time.perf_counter() - start}
        answer = None
        if assistant is not None:
            given = assistant.ask(question.text)
            answer = judge_answer(given, gold)
            timings |= given.timings
        yield _outcome(question, gold, found, thresholds, timings, answer)


def _outcome(
    question: Question,
    gold: Gold,
    found: Sequence[Document],
    thresholds: Mapping[Language, float] | None,
    timings: Mapping[str, float],
    answer: AnswerOutcome | None,
) -> Outcome:
    right = [gold.is_right(item.page_content, _source(item)) for item in found]
    # The documents of the right passages are near whatever else is known.
    sources = {_source(item) for item, is_right in zip(found, right, strict=True) if is_right}
    measured = not found or "evidence" in found[0].metadata
    cases: dict[str, Evidence] = {}
    if measured:
        cases["present"] = _evidence(found, question.language, thresholds)
    if measured and gold.present:
        others = [item for item, is_right in zip(found, right, strict=True) if not is_right]
        far = [
            item
            for item in others
            if _source(item) not in sources and not gold.is_near(item.page_content, _source(item))
        ]
        cases["hard"] = _evidence(others, question.language, thresholds)
        cases["easy"] = _evidence(far, question.language, thresholds)
    return Outcome(
        id=question.id,
        question=question.text,
        language=question.language,
        group=question.group,
        answerable=gold.present,
        has_answers=bool(question.answers),
        relevance=tuple(right),
        timings=timings,
        answer=answer,
        **cases,
    )


def judge_answer(answer: Answer, gold: Gold) -> AnswerOutcome:
    """Compare an answer with what is known; one that abstained is no answer."""
    text = "" if answer.abstained else answer.text
    right = sum(_is_right(citation, answer, gold) for citation in answer.citations)
    return AnswerOutcome(
        text=answer.text,
        abstained=answer.abstained,
        reason=answer.reason,
        exact_match=exact_match(text, gold.answers),
        f1=f1(text, gold.answers),
        contains=contains(text, gold.answers),
        num_citations=len(answer.citations),
        num_right_citations=right,
    )


def _is_right(citation: Citation, answer: Answer, gold: Gold) -> bool:
    """The quote overlaps what answers; a bare answer must stand in the passage quoted from."""
    if gold.paragraph is not None or gold.sources:
        return gold.is_right(citation.quote, citation.source)
    passages = {passage.index: passage.text for passage in answer.context.passages}
    return gold.is_right(passages.get(citation.index, citation.quote), citation.source)


def _evidence(
    found: Sequence[Document], language: Language, thresholds: Mapping[Language, float] | None
) -> Evidence:
    if not found:
        return Evidence(None)
    margin = float(found[0].metadata["evidence"])
    if thresholds is None or detect_language(found[0].page_content) != language:
        return Evidence(margin)
    return Evidence(margin, probability(margin + thresholds[language]))


def probability(logit: float) -> float:
    """Logistic function, without overflow."""
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, logit))))


def _source(document: Document) -> str:
    return str(document.metadata.get("source") or document.id or "")
