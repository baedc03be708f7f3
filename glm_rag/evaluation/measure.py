"""What a calibration is fitted on: for each question, the few passages that can come first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from glm_rag.evaluation.datasets import Question
from glm_rag.evaluation.matching import Gold
from glm_rag.retrieval.calibration import Calibration, calibration_of, is_small_talk
from glm_rag.retrieval.candidates import Candidate, CandidateStore
from glm_rag.retrieval.centres import vectors_across
from glm_rag.retrieval.fusion import fuse
from glm_rag.retrieval.retriever import MAX_TERMS, MIN_COLLECTION
from glm_rag.retrieval.sparse import weigh_terms
from glm_rag.text import query_terms
from glm_rag.types import Language

_CANDIDATES = 20
# Passages of each language that a question is compared with for the cosines of unrelated text.
_SAMPLE = 1000
# Standard deviation of a normal distribution over its median absolute deviation.
_NORMAL = 1.4826
# Bonuses shift whole languages, so they never change which passage of one language comes first.
_NO_BONUS = Calibration({}, {}, {}, 0.0, 0.0, 0.0, {}, {})


class SampledStore(CandidateStore, Protocol):
    """A store that also gives vectors of passages taken evenly from each language."""

    def sample_vectors(self, limit: int) -> Mapping[Language, np.ndarray]:
        """At most `limit` of each language, `[N, dimension]`."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One question and the passages that can come first, one at most of each language.

    Attributes:
        group: questions of one group are never on both sides of a split.
        present: with everything there. hard: with the right passages taken away. easy: with their
            article or document taken away. The last two are empty where nothing is right.
        right: passages in `present` that are right, by language.
        background: median cosine to a sample of the passages of each language, and the deviation;
            of the vector that the language is searched by.
        weights, num_chunks, mean_terms: what scores are made of, as the retriever has them.
    """

    language: Language
    group: str
    answerable: bool
    present: tuple[Candidate, ...]
    hard: tuple[Candidate, ...]
    easy: tuple[Candidate, ...]
    right: frozenset[Language]
    background: Mapping[Language, tuple[float, float]]
    weights: Mapping[str, float]
    num_chunks: int
    mean_terms: float


def measure_all(
    questions: Sequence[Question], golds: Sequence[Gold], store: SampledStore
) -> Iterator[Measured]:
    """Each question that retrieves anything; small talk and empty questions are left out."""
    sample = store.sample_vectors(_SAMPLE)
    for question, gold in zip(questions, golds, strict=True):
        terms = query_terms(question.text)[:MAX_TERMS]
        if terms and not is_small_talk(question.text):
            yield _measure(question, gold, store, terms, sample)


def _measure(
    question: Question,
    gold: Gold,
    store: SampledStore,
    terms: list[str],
    sample: Mapping[Language, np.ndarray],
) -> Measured:
    vector = np.asarray(store.embeddings.embed_query(question.text), dtype=np.float32)
    vector = vector / (np.linalg.norm(vector) or 1)
    calibration = calibration_of(store)
    centre = calibration.centre if calibration else {}
    across = vectors_across(vector, question.language, centre)
    extra: dict[str, Any] = {"vectors": across} if across else {}
    found = store.candidates(vector, terms, limit=_CANDIDATES, **extra)
    num_chunks = max(found.num_chunks, MIN_COLLECTION)
    weights = weigh_terms(terms, found.document_frequency, num_chunks)

    def score(candidate: Candidate) -> float:
        return fuse(candidate, weights, found.mean_terms, question.language, _NO_BONUS)

    right = [c for c in found.candidates if gold.present and _is(gold.is_right, c)]
    sources = {_source(c) for c in right}
    others = [c for c in found.candidates if c not in right] if gold.present else []
    far = [c for c in others if _source(c) not in sources and not _is(gold.is_near, c)]
    present = _firsts(found.candidates, score)
    return Measured(
        language=question.language,
        group=question.group,
        answerable=gold.present,
        present=present,
        hard=_firsts(others, score),
        easy=_firsts(far, score),
        right=frozenset(c.language for c in present if c in right),
        background={
            language: _centre(vectors @ across.get(language, vector))
            for language, vectors in sample.items()
            if len(vectors)
        },
        weights=weights,
        num_chunks=num_chunks,
        mean_terms=found.mean_terms,
    )


def _firsts(
    candidates: Sequence[Candidate], score: Callable[[Candidate], float]
) -> tuple[Candidate, ...]:
    best: dict[Language, Candidate] = {}
    for candidate in sorted(candidates, key=score):
        best[candidate.language] = candidate
    return tuple(best.values())


def _is(test: Callable[[str, str], bool], candidate: Candidate) -> bool:
    return test(candidate.document.page_content, _source(candidate))


def _source(candidate: Candidate) -> str:
    return str(candidate.document.metadata.get("source") or candidate.document.id or "")


def _centre(cosines: np.ndarray) -> tuple[float, float]:
    """Median and scaled median deviation: the few passages about the same matter do not count."""
    middle = float(np.median(cosines))
    return middle, _NORMAL * float(np.median(np.abs(cosines - middle)))
