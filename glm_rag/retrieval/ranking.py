"""A ranking and what may change it. Pure functions; scores never rise from one place to the next.

Packing and judging read scores and evidence, so whatever reorders passages keeps both meaningful.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from glm_rag.retrieval.diversity import diverse_order
from glm_rag.types import ScoredDocument

if TYPE_CHECKING:
    import numpy as np
    from langchain_core.documents import Document


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage in its place.

    `evidence` is None where the embedder is not calibrated, `rerank_score` where no reranker
    read it.
    """

    document: Document
    score: float
    evidence: float | None = None
    vector: np.ndarray | None = field(default=None, repr=False, compare=False)
    rerank_score: float | None = None

    def as_document(self) -> ScoredDocument:
        """The passage with its numbers in the metadata; the stored one is not touched."""
        measured = {"evidence": self.evidence, "rerank_score": self.rerank_score}
        known = {name: value for name, value in measured.items() if value is not None}
        document = self.document.model_copy(
            update={"metadata": {**self.document.metadata, "score": self.score, **known}}
        )
        return ScoredDocument(document=document, score=self.score, retriever="hybrid")


def merge(rankings: Sequence[list[Ranked]]) -> list[Ranked]:
    """One ranking of several queries: each passage with its best score and best evidence.

    Each query asks for something of its own, and scores of two queries say little about each
    other. So a passage that is evidence enough for its query is scored by its share of the first
    one there: the first of each query is as good as the best of all. Otherwise packing would
    leave out what only the second of two questions asks for.
    """
    if len(rankings) == 1:
        return rankings[0]
    top = max((ranking[0].score for ranking in rankings if ranking), default=0.0)
    best: dict[str | None, Ranked] = {}
    for ranking in rankings:
        for item in ranking:
            level = _levelled(item, ranking[0].score, top)
            known = best.get(item.document.id)
            best[item.document.id] = level if known is None else _better(known, level)
    return sorted(best.values(), key=lambda item: (-item.score, item.document.id or ""))


def _levelled(item: Ranked, first: float, top: float) -> Ranked:
    if item.evidence is None or item.evidence < 0 or first <= 0:
        return item
    return replace(item, score=(top / first) * item.score)


def reorder(found: Sequence[Ranked], scores: Sequence[float]) -> list[Ranked]:
    """The first passages in the order of a reranker's scores, with the scores of their new places.

    The first one counts as no weaker evidence than the one it replaces: whether the documents
    answer was calibrated on the order before.
    """
    head = found[: len(scores)]
    order = sorted(range(len(head)), key=lambda place: -scores[place])
    moved = [
        replace(head[old], score=head[new].score, rerank_score=scores[old])
        for new, old in enumerate(order)
    ]
    if moved and moved[0].evidence is not None and head[0].evidence is not None:
        moved[0] = replace(moved[0], evidence=max(moved[0].evidence, head[0].evidence))
    return [*moved, *found[len(head) :]]


def diversify(found: Sequence[Ranked], difference: float, k: int) -> list[Ranked]:
    """`k` passages by maximal marginal relevance, none with a score above the one before it."""
    vectors = [item.vector for item in found if item.vector is not None]
    order = diverse_order([item.score for item in found], vectors, difference, k)
    return list(_falling(found[place] for place in order))


def _better(one: Ranked, other: Ranked) -> Ranked:
    first = one if one.score >= other.score else other
    evidence = [item.evidence for item in (one, other) if item.evidence is not None]
    return replace(first, evidence=max(evidence) if evidence else None)


def _falling(found: Iterable[Ranked]) -> Iterable[Ranked]:
    lowest = float("inf")
    for item in found:
        lowest = min(lowest, item.score)
        yield replace(item, score=lowest)
