"""Is this passage enough evidence to answer? A margin: 0 or more means yes.

Same language: logit = w1 * z + w2 * C2 + intercept, minus the threshold that keeps 90 % of the
answerable questions; z is the standardised cosine and C2 the covered share of the question, as
if it had two more unknown terms. Other language: words cannot be compared, so z alone must
pass, and the question must be worth at least two unknown terms. A passage in the other language
that holds lines in the question's own (a bilingual list) is judged by both; the better counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from glm_rag.retrieval.calibration import Calibration, LanguagePair
from glm_rag.retrieval.candidates import Candidate
from glm_rag.retrieval.sparse import coverage, inverse_document_frequency
from glm_rag.text import holds_language
from glm_rag.types import Language


def evidence_margin(
    candidate: Candidate,
    weights: Mapping[str, float],
    num_chunks: int,
    question_language: Language,
    calibration: Calibration,
) -> float:
    """Signed distance from the threshold, in logits."""
    found = (candidate, weights, num_chunks, question_language, calibration)
    if candidate.language == question_language:
        return _margin_of_own_language(*found)
    margin = _margin_of_other_language(*found)
    if holds_language(candidate.document.page_content, question_language):
        return max(margin, _margin_of_own_language(*found))
    return margin


def _margin_of_own_language(
    candidate: Candidate,
    weights: Mapping[str, float],
    num_chunks: int,
    language: Language,
    calibration: Calibration,
) -> float:
    z = standardised(candidate.cosine, (language, language), calibration)
    logit = (
        calibration.weight_cosine * z
        + calibration.weight_coverage * covered_share(candidate, weights, num_chunks)
        + calibration.intercept
    )
    return logit - calibration.threshold[language]


def covered_share(candidate: Candidate, weights: Mapping[str, float], num_chunks: int) -> float:
    """C2: the share of the question that the passage covers, two more unknown terms in it."""
    total = sum(weights.values()) + 2 * inverse_document_frequency(0, num_chunks)
    return coverage(weights, candidate.term_counts) / total


def _margin_of_other_language(
    candidate: Candidate,
    weights: Mapping[str, float],
    num_chunks: int,
    language: Language,
    calibration: Calibration,
) -> float:
    z = standardised(candidate.near, (language, candidate.language), calibration)
    by_cosine = calibration.weight_cosine * (z - calibration.cross_z[language])
    by_question = sum(weights.values()) / (2 * inverse_document_frequency(0, num_chunks)) - 1
    return min(by_cosine, by_question)


def standardised(cosine: float, pair: LanguagePair, calibration: Calibration) -> float:
    """z: the cosine in deviations above that of a passage about something else."""
    return (cosine - calibration.mean[pair]) / calibration.deviation[pair]
