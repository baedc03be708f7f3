"""The hybrid retriever: candidates of each language and of each rare term, one fused order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field, SkipValidation

from glm_rag.errors import ConfigError
from glm_rag.retrieval.calibration import calibration_of, is_small_talk
from glm_rag.retrieval.candidates import CandidateSet, CandidateStore
from glm_rag.retrieval.evidence import evidence_margin
from glm_rag.retrieval.fusion import fuse
from glm_rag.retrieval.sparse import weigh_terms
from glm_rag.text import detect_language, query_terms
from glm_rag.types import ScoredDocument

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )

# Among a handful of passages every word is common, and nothing would ever be evidence: a small
# knowledge base is weighed as part of one of the size that the constants were fitted on.
MIN_COLLECTION = 240
# A question is a few sentences; more terms than this come from a pasted page.
MAX_TERMS = 256


class HybridRetriever(BaseRetriever):
    """Finds passages by meaning and by words, in both languages.

    Returned documents carry `score` in their metadata and, where the embedder is calibrated,
    `evidence`: 0 or more means that the passage is enough to answer from. Small talk and
    questions without an informative word retrieve nothing.

    Attributes:
        store: a `KnowledgeBase`, or anything with the same three members.
        k: passages returned.
        num_candidates: dense candidates of each language, and the measure of the sparse ones.
        filter: metadata that passages must have; a list of values means any of them.
    """

    store: SkipValidation[CandidateStore] = Field(repr=False, exclude=True)
    k: int = Field(8, ge=1)
    num_candidates: int = Field(20, ge=1, alias="candidates")
    filter: Mapping[str, Any] | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, populate_by_name=True)

    def search(self, question: str, k: int | None = None) -> list[ScoredDocument]:
        """The `k` best passages, best first.

        Raises:
            ConfigError: `k` is below 1.
            KnowledgeBaseError: the store cannot be read.
        """
        k = self.k if k is None else k
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        terms = query_terms(question)[:MAX_TERMS]
        if not terms or is_small_talk(question):
            return []
        vector = np.asarray(self.store.embeddings.embed_query(question), dtype=np.float32)
        limit = max(self.num_candidates, k)
        found = self.store.candidates(vector, terms, limit=limit, where=self.filter)
        return self._rank(question, terms, found, k)

    def _rank(
        self, question: str, terms: list[str], found: CandidateSet, k: int
    ) -> list[ScoredDocument]:
        language = detect_language(question)
        calibration = calibration_of(self.store)
        num_chunks = max(found.num_chunks, MIN_COLLECTION)
        weights = weigh_terms(terms, found.document_frequency, num_chunks)
        scored = [
            (fuse(candidate, weights, found.mean_terms, language, calibration), candidate)
            for candidate in found.candidates
        ]
        scored.sort(key=lambda item: (-item[0], item[1].document.id or ""))
        best = []
        for score, candidate in scored[:k]:
            measured = {"score": score}
            if calibration is not None:
                measured["evidence"] = evidence_margin(
                    candidate, weights, num_chunks, language, calibration
                )
            best.append(_scored_document(candidate.document, measured))
        return best

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


def _scored_document(document: Document, measured: dict[str, float]) -> ScoredDocument:
    copy = Document(
        id=document.id,
        page_content=document.page_content,
        metadata={**document.metadata, **measured},
    )
    return ScoredDocument(document=copy, score=measured["score"], retriever="hybrid")
