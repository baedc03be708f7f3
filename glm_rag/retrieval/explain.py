"""Why a question finds what it finds: every candidate's places and what they are made of.

The fused order is the retriever's own, asked for all candidates instead of the first few; what
each part said is noted while it searches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from glm_rag.retrieval.calibration import is_small_talk
from glm_rag.retrieval.candidates import Candidate, CandidateSet, CandidateStore
from glm_rag.retrieval.retriever import MIN_COLLECTION, HybridRetriever
from glm_rag.retrieval.sparse import bm25, weigh_terms
from glm_rag.text import detect_language, query_terms
from glm_rag.types import Language, ScoredDocument

if TYPE_CHECKING:
    import numpy as np
    from langchain_core.documents import Document

_ALL = 1_000_000


@dataclass(frozen=True, slots=True)
class Explained:
    """A candidate. Ranks count from 1.

    Attributes:
        score: of the fused order; `fused_rank` is its place there.
        cosine: of question and passage; of a long question, of its nearest part. The score of a
            passage in the other language is made of another one (`retrieval.centres`).
        bm25: 0 where the passage shares no word with the question; it has no `sparse_rank` then.
        evidence: margin above the threshold of answering, in logits; None without calibration.
        terms: the question's terms that it holds, the rarest first.
    """

    document: Document
    language: Language
    fused_rank: int
    score: float
    dense_rank: int
    cosine: float
    sparse_rank: int | None
    bm25: float
    evidence: float | None
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a question was taken for, and what came of it.

    Attributes:
        terms: its search terms with their weight (inverse document frequency).
        candidates: all that were compared, in the fused order.
        final: what `search` gives: the first of them, reranked, diversified and grown if set.
        nothing: why nothing was searched, "" where something was.
    """

    question: str
    language: Language
    terms: Mapping[str, float]
    candidates: tuple[Explained, ...]
    final: tuple[ScoredDocument, ...]
    nothing: Literal["", "small_talk", "no_terms"] = ""


def explain(retriever: HybridRetriever, question: str, k: int | None = None) -> Explanation:
    """Search as `retriever.search(question, k)` does, and keep what it is made of.

    Raises:
        GlmRagError: as `search`.
    """
    k = retriever.k if k is None else k
    final = tuple(retriever.search(question, k))
    language = detect_language(question)
    if nothing := _not_searched(question):
        return Explanation(question, language, {}, (), final, nothing)
    store = _Noted(retriever.store, limit=max(retriever.num_candidates, k))
    plain = {"store": store, "reranker": None, "mmr": 0.0, "expand": "none"}
    fused = retriever.model_copy(update=plain).search(question, _ALL)
    return Explanation(question, language, store.weights(), tuple(_explained(fused, store)), final)


def _not_searched(question: str) -> Literal["", "small_talk", "no_terms"]:
    if is_small_talk(question):
        return "small_talk"
    return "" if query_terms(question) else "no_terms"


class _Noted:
    """A store that notes what it was asked for and what it gave; all else is the store's."""

    def __init__(self, store: CandidateStore, *, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._found: list[tuple[dict[str, float], CandidateSet]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def candidates(
        self, vector: np.ndarray, terms: Sequence[str], *, limit: int, **options: Any
    ) -> CandidateSet:
        """As many as the search that is explained had, whatever the limit."""
        found = self._store.candidates(vector, terms, limit=self._limit, **options)
        num_chunks = max(found.num_chunks, MIN_COLLECTION)
        self._found.append((weigh_terms(terms, found.document_frequency, num_chunks), found))
        return found

    def weights(self) -> dict[str, float]:
        """Of all terms that were searched."""
        return {term: weight for weights, _ in self._found for term, weight in weights.items()}

    def best(self) -> dict[str | None, _Parts]:
        """What dense and sparse search said of each passage, by its id."""
        parts: dict[str | None, _Parts] = defaultdict(_Parts)
        for weights, found in self._found:
            for candidate in found.candidates:
                sparse = bm25(weights, candidate.term_counts, candidate.num_terms, found.mean_terms)
                parts[candidate.document.id].add(candidate, sparse)
        return parts


class _Parts:
    """The best of what each part of a question found in one passage."""

    def __init__(self) -> None:
        self.language: Language = "en"
        self.cosine = float("-inf")
        self.bm25 = 0.0
        self.terms: set[str] = set()

    def add(self, candidate: Candidate, sparse: float) -> None:
        """What one part found."""
        self.language = candidate.language
        self.cosine = max(self.cosine, candidate.cosine)
        self.bm25 = max(self.bm25, sparse)
        self.terms |= {term for term, count in candidate.term_counts.items() if count}


def _explained(fused: Sequence[ScoredDocument], store: _Noted) -> Iterable[Explained]:
    parts, weights = store.best(), store.weights()
    dense = _ranks(parts, lambda part: part.cosine)
    sparse = _ranks(parts, lambda part: part.bm25)
    for rank, item in enumerate(fused, start=1):
        key = item.document.id
        part = parts[key]
        yield Explained(
            document=item.document,
            language=part.language,
            fused_rank=rank,
            score=item.score,
            dense_rank=dense[key],
            cosine=part.cosine,
            sparse_rank=sparse[key] if part.bm25 > 0 else None,
            bm25=part.bm25,
            evidence=item.document.metadata.get("evidence"),
            terms=tuple(sorted(part.terms, key=lambda term: (-weights.get(term, 0.0), term))),
        )


def _ranks(
    parts: Mapping[str | None, _Parts], by: Callable[[_Parts], float]
) -> dict[str | None, int]:
    order = sorted(parts, key=lambda key: (-by(parts[key]), key or ""))
    return {key: rank for rank, key in enumerate(order, start=1)}
