"""Is this passage enough evidence to answer? A margin: 0 or more means yes.

Same language: logit = w1 * z + w2 * C2 + intercept, minus the threshold that keeps 90 % of the
answerable questions; z is the standardised cosine and C2 the covered share of the question, as
if it had two more unknown terms. Other language: words cannot be compared, so z alone must
pass, and the question must be worth at least two unknown terms.
"""

from __future__ import annotations

from collections.abc import Mapping

from glm_rag.retrieval.calibration import Calibration
from glm_rag.retrieval.candidates import Candidate
from glm_rag.retrieval.sparse import coverage, inverse_document_frequency
from glm_rag.types import Language


def evidence_margin(
    candidate: Candidate,
    weights: Mapping[str, float],
    num_chunks: int,
    question_language: Language,
    calibration: Calibration,
) -> float:
    """Signed distance from the threshold, in logits."""
    pair = (question_language, candidate.language)
    z = (candidate.cosine - calibration.mean[pair]) / calibration.deviation[pair]
    total = sum(weights.values())
    two_unknown_terms = 2 * inverse_document_frequency(0, num_chunks)
    if candidate.language != question_language:
        by_cosine = calibration.weight_cosine * (z - calibration.cross_z[question_language])
        by_question = total / two_unknown_terms - 1
        return min(by_cosine, by_question)
    covered = coverage(weights, candidate.term_counts) / (total + two_unknown_terms)
    logit = (
        calibration.weight_cosine * z
        + calibration.weight_coverage * covered
        + calibration.intercept
    )
    return logit - calibration.threshold[question_language]
