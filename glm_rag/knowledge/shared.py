"""What every knowledge base does alike, wherever its rows lie: checking, embedding, LangChain."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from glm_rag.errors import ConfigError, KnowledgeBaseError
from glm_rag.knowledge import records, storing
from glm_rag.knowledge.embedder import Embeds
from glm_rag.knowledge.verifying.citations import verify_citations
from glm_rag.retrieval.calibration import Calibration, calibration_from_json
from glm_rag.retrieval.retriever import RETRIEVER_OPTIONS, HybridRetriever
from glm_rag.types import Chunk, ExtractedDocument, IngestFailure, VerifyFinding

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever


class SharedMethods(Embeds, VectorStore):
    """The methods of a `KnowledgeBase` that do not depend on where its rows lie."""

    takes_vectors = True  # `candidates` can search a language by a vector of its own

    @abstractmethod
    def put_documents(
        self,
        items: Sequence[tuple[ExtractedDocument, Sequence[Chunk], np.ndarray]],
        failures: Sequence[IngestFailure] = (),
    ) -> Literal["added", "updated"]:
        """Store a file with its members, all or nothing, in place of its older version."""

    @abstractmethod
    def get_text(self, source: str) -> str:
        """The extracted text that all offsets of a document refer to."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open."""

    @abstractmethod
    def _nearest(
        self, embedding: Sequence[float], k: int, where: Mapping[str, Any] | None
    ) -> list[tuple[Document, float, np.ndarray]]:
        """Chunks nearest to a vector, with their cosine and their own vector `[dimension]`."""

    @abstractmethod
    def _quoted(self, citation: Mapping[str, Any]) -> str:
        """The characters that a citation names now, empty where there are none."""

    def put_document(
        self,
        document: ExtractedDocument,
        chunks: Sequence[Chunk],
        vectors: np.ndarray | None = None,
    ) -> Literal["added", "updated"]:
        """`put_documents` of a file that holds no others.

        Args:
            document: lone surrogates in its text become U+FFFD, so offsets stay.
            chunks: pieces of `document.text`, each with another start.
            vectors: `[len(chunks), dimension]` from `embed_chunks`; default: computed here.

        Raises:
            KnowledgeBaseError: as `put_documents`.
        """
        if vectors is None:
            storing.check_chunks(document, chunks)
            vectors = self.embed_chunks([storing.storable_chunk(chunk) for chunk in chunks])
        return self.put_documents([(document, chunks, vectors)])

    def _prepared(
        self, document: ExtractedDocument, chunks: Sequence[Chunk], vectors: np.ndarray
    ) -> storing.Prepared:
        storing.check_chunks(document, chunks)
        document = replace(document, text=records.storable(document.text))
        chunks = [storing.storable_chunk(chunk) for chunk in chunks]
        name = self.embeddings_name
        hashes = [records.embedding_hash(name, self.embedding_text(chunk)) for chunk in chunks]
        return storing.Prepared(document, chunks, self._checked(vectors, len(chunks)), hashes)

    def get_parent(self, document: Document) -> Document:
        """The section around a chunk, with its offsets; a chunk without one is its own parent.

        Raises:
            KnowledgeBaseError: its document is not here, or has changed since.
        """
        metadata = document.metadata
        if not metadata.get("section"):
            return document
        source, (start, end) = metadata["source"], metadata["section"]
        text = self.get_text(source)
        if text[metadata["start"] : metadata["end"]] != document.page_content:
            raise KnowledgeBaseError(
                f"{source} has changed since this passage was found: ask again"
            )
        names = ("source", "title", "headings", "language", "container")
        known = {name: metadata[name] for name in names if name in metadata}
        return document.model_copy(
            update={
                "id": None,
                "page_content": text[start:end],
                "metadata": {**known, "start": start, "end": end},
            }
        )

    def verify_citations(self, citations: Sequence[Mapping[str, Any]]) -> list[VerifyFinding]:
        """Which citations of a saved answer do not open to their quote any more; none is expected.

        Args:
            citations: as `glm-rag ask --json` prints them.
        """
        return list(verify_citations(citations, self._quoted))

    # ------------------------------------------------------------ retrieval

    def as_retriever(self, **kwargs: Any) -> BaseRetriever:  # type: ignore[override]
        """A `HybridRetriever`; with `search_type`, LangChain's retriever over vectors alone.

        Args:
            **kwargs: what `HybridRetriever` takes (also inside `search_kwargs`), `tags`; or what
                LangChain's `as_retriever` takes, with `search_type`.
        """
        if "search_type" in kwargs:
            return super().as_retriever(**kwargs)
        options = {**kwargs.pop("search_kwargs", {}), **kwargs}
        unknown = set(options) - {*RETRIEVER_OPTIONS, "tags", "metadata"}
        if unknown:
            raise ConfigError(
                f"unknown retriever option {sorted(unknown)[0]!r}: "
                f"use {', '.join(RETRIEVER_OPTIONS)}"
            )
        return HybridRetriever(store=self, **options)

    @property
    def calibration(self) -> Calibration | None:
        """The constants fitted for this knowledge base's embedder; None: those of the embedder.

        Raises:
            KnowledgeBaseError: what is stored is no calibration.
        """
        stored = self._get_meta("calibration")
        if stored is None:
            return None
        embedder, _, constants = stored.partition("\n")
        try:
            return calibration_from_json(constants) if embedder == self.embeddings_name else None
        except ConfigError as error:
            raise KnowledgeBaseError(
                f"knowledge base {self.name!r}: {error}; fit another with "
                f"glm-rag eval DATASET --kb {self.name} --calibrate --apply"
            ) from error

    # ------------------------------------------------------------ by vector alone

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """The `k` chunks nearest to the query by vector alone."""
        return [found for found, _ in self.similarity_search_with_score(query, k, filter=filter)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """The nearest chunks with their cosine; higher is better."""
        vector = self.embeddings.embed_query(query)
        return [(document, score) for document, score, _ in self._nearest(vector, k, filter)]

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """The `k` chunks nearest to a vector."""
        return [document for document, _, _ in self._nearest(embedding, k, filter)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """The `k` of the `fetch_k` nearest chunks that are near but unlike each other."""
        return self.max_marginal_relevance_search_by_vector(
            self.embeddings.embed_query(query), k, fetch_k, lambda_mult, filter=filter
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, from a vector."""
        found = self._nearest(embedding, max(fetch_k, k), filter)
        if not found:
            return []
        vectors = [vector.tolist() for _, _, vector in found]
        chosen = maximal_marginal_relevance(np.asarray([embedding]), vectors, lambda_mult, k)
        return [found[i][0] for i in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(1.0, max(0.0, (1 + cosine) / 2))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
