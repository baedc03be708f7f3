"""The hybrid retriever: candidates of each language and of each rare term, one fused order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field, SkipValidation

from glm_rag.errors import ConfigError
from glm_rag.retrieval import ranking
from glm_rag.retrieval.calibration import Calibration, calibration_of, is_small_talk
from glm_rag.retrieval.candidates import (
    Candidate,
    CandidateSet,
    CandidateStore,
    GrowingStore,
)
from glm_rag.retrieval.centres import vectors_across
from glm_rag.retrieval.evidence import evidence_margin
from glm_rag.retrieval.fusion import fuse
from glm_rag.retrieval.queries import queries_of
from glm_rag.retrieval.ranking import Ranked
from glm_rag.retrieval.rerank.base import Reranker
from glm_rag.retrieval.sparse import weigh_terms
from glm_rag.text import detect_language, estimate_tokens, is_in_script_of, query_terms
from glm_rag.types import Language, ScoredDocument

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document

# Among a handful of passages every word is common, and nothing would ever be evidence: a small
# knowledge base is weighed as part of one of the size that the constants were fitted on.
MIN_COLLECTION = 240
# A question is a few sentences; more terms than this come from a pasted page.
MAX_TERMS = 256
# What `as_retriever` takes.
RETRIEVER_OPTIONS = (
    *("k", "candidates", "filter", "mmr", "multi_query"),
    *("reranker", "rerank_first", "expand", "expand_tokens"),
)


class HybridRetriever(BaseRetriever):
    """Finds passages by meaning and by words, in both languages.

    Returned documents carry `score` in their metadata and, where the embedder is calibrated,
    `evidence`: 0 or more means that the passage is enough to answer from. Small talk and
    questions without an informative word retrieve nothing.

    Attributes:
        store: a `KnowledgeBase`, or anything with the same three members.
        k: passages returned.
        num_candidates: dense candidates of each language, and the measure of the sparse ones.
        filter: metadata that passages must have (docs/retrieval.md); a list of values means any
            of them.
        mmr: what being unlike the passages before counts, against being good; 0 turns it off.
        multi_query: search the sentences of a long question, too.
        reranker: puts the first `rerank_first` passages into an order of its own. Scores are
            given out anew in that order, since packing reads them; its own is `rerank_score`.
        expand: show passages with the chunks before and behind them, or with their section, up
            to `expand_tokens` tokens of the embedder.
    """

    store: SkipValidation[CandidateStore] = Field(repr=False, exclude=True)
    k: int = Field(8, ge=1)
    num_candidates: int = Field(20, ge=1, alias="candidates")
    filter: Mapping[str, Any] | None = None
    mmr: float = Field(0.0, ge=0, le=1)
    multi_query: bool = True
    reranker: SkipValidation[Reranker | None] = Field(None, repr=False, exclude=True)
    rerank_first: int = Field(8, ge=1)
    expand: Literal["none", "neighbours", "section"] = "none"
    expand_tokens: int = Field(512, ge=16)

    model_config = ConfigDict(arbitrary_types_allowed=True, populate_by_name=True)

    def search(self, question: str, k: int | None = None) -> list[ScoredDocument]:
        """The `k` best passages, best first; fewer where one has grown over others.

        Raises:
            ConfigError: `k` is below 1, or the filter cannot be compared with.
            KnowledgeBaseError: the store cannot be read.
            ModelError, MissingDependencyError: the reranker cannot be loaded.
        """
        k = self.k if k is None else k
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        if not query_terms(question) or is_small_talk(question):
            return []
        queries = queries_of(question) if self.multi_query else [question]
        found = ranking.merge([self._search_one(query, k) for query in queries])
        if self.reranker is not None:
            head = [item.document for item in found[: self.rerank_first]]
            found = ranking.reorder(found, self.reranker.scores(question, head))
        if self.mmr:
            found = ranking.diversify(found[: self._limit(k)], self.mmr, k)
        return [item.as_document() for item in self._grown(found[:k])]

    def _limit(self, k: int) -> int:
        return max(self.num_candidates, k)

    def _search_one(self, query: str, k: int) -> list[Ranked]:
        terms = query_terms(query)[:MAX_TERMS]
        vector = np.asarray(self.store.embeddings.embed_query(query), dtype=np.float32)
        language, calibration = detect_language(query), calibration_of(self.store)
        # A store that was written before there was `with_vectors` need not know it.
        extra: dict[str, Any] = {"with_vectors": True} if self.mmr else {}
        across = vectors_across(vector, language, calibration.centre) if calibration else {}
        if across:
            extra["vectors"] = across
        found = self.store.candidates(
            vector, terms, limit=self._limit(k), where=self.filter, **extra
        )
        first = self.rerank_first if self.reranker is not None else 0
        depth = max(k, first, self._limit(k) if self.mmr else 0)
        return self._rank(language, terms, found, depth, calibration)

    def _rank(
        self,
        language: Language,
        terms: list[str],
        found: CandidateSet,
        depth: int,
        calibration: Calibration | None,
    ) -> list[Ranked]:
        num_chunks = max(found.num_chunks, MIN_COLLECTION)
        weights = weigh_terms(terms, found.document_frequency, num_chunks)
        scored = [
            (fuse(candidate, weights, found.mean_terms, language, calibration), candidate)
            for candidate in (weighed_as(language, candidate) for candidate in found.candidates)
        ]
        scored.sort(key=lambda item: (-item[0], item[1].document.id or ""))
        return [
            Ranked(
                candidate.document,
                score,
                None
                if calibration is None
                else evidence_margin(candidate, weights, num_chunks, language, calibration),
                candidate.vector,
            )
            for score, candidate in scored[:depth]
        ]

    def _grown(self, found: list[Ranked]) -> list[Ranked]:
        """Passages with what stands around them; those that another has grown over are left out."""
        if self.expand == "none":
            return found
        store = self.store
        if not isinstance(store, GrowingStore):
            raise ConfigError("this store cannot expand passages: set retrieval.expand to none")
        count = getattr(store.embeddings, "count_tokens", estimate_tokens)
        grown: list[Ranked] = []
        held: set[str] = set()
        for item in found:
            if item.document.id in held:
                continue
            document = store.grow(
                item.document,
                self.expand,
                fits=lambda text: count(text) <= self.expand_tokens,
                without=held,
            )
            parts = document.metadata.get("parts") or [{"id": document.id}]
            held.update(part["id"] for part in parts if part["id"])
            grown.append(replace(item, document=document))
        return grown

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
    ) -> list[Document]:
        return [item.document for item in self.search(query, k)]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
    ) -> list[Document]:
        found = await run_in_executor(None, self.search, query, k)
        return [item.document for item in found]


def weighed_as(language: Language, candidate: Candidate) -> Candidate:
    """A passage as `fuse` and `evidence_margin` shall see it.

    What a foreign language is granted, since words cannot be compared, is for text that is in it:
    not for English in a Chinese document, nor for a third script that counts as English.
    """
    if candidate.language == language:
        return candidate
    is_foreign = is_in_script_of(candidate.document.page_content, candidate.language)
    return candidate if is_foreign else replace(candidate, language=language, across=None)
