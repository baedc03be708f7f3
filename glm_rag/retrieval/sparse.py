"""BM25 over terms. Each question term counts once; unknown terms have document frequency 0.

Formula: Robertson & Zaragoza, The Probabilistic Relevance Framework (2009), with the idf of
Lucene; k1 and b were chosen on XQuAD, English and Chinese.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

K1 = 0.9
B = 0.4


def inverse_document_frequency(document_frequency: int, num_chunks: int) -> float:
    """ln(1 + (N - df + 0.5) / (df + 0.5)): above 0 for every df from 0 to N."""
    return math.log(1 + (num_chunks - document_frequency + 0.5) / (document_frequency + 0.5))


def weigh_terms(
    terms: Sequence[str], document_frequency: Mapping[str, int], num_chunks: int
) -> dict[str, float]:
    """The idf of every question term."""
    return {
        term: inverse_document_frequency(document_frequency.get(term, 0), num_chunks)
        for term in terms
    }


def bm25(
    weights: Mapping[str, float],
    term_counts: Mapping[str, int],
    num_terms: int,
    mean_terms: float,
) -> float:
    """BM25 of one chunk, with the (k1 + 1) numerator.

    Args:
        weights: idf of the question's terms.
        term_counts: occurrences in the chunk.
        num_terms, mean_terms: length of the chunk, and of the average chunk.
    """
    length = K1 * (1 - B + B * num_terms / mean_terms) if mean_terms else K1
    return sum(
        weight * term_counts[term] * (K1 + 1) / (term_counts[term] + length)
        for term, weight in weights.items()
        if term_counts.get(term)
    )


def coverage(weights: Mapping[str, float], term_counts: Mapping[str, int]) -> float:
    """Sum of the idf of the question's terms that occur in the chunk."""
    return sum(weight for term, weight in weights.items() if term_counts.get(term))
