"""What LangChain asks of a vector store: texts that belong to no file, search by vector alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from glm_rag.errors import ConfigError
from glm_rag.knowledge import filters, reading, records
from glm_rag.knowledge.embedder import normalised
from glm_rag.knowledge.library import Library
from glm_rag.text import detect_language
from glm_rag.types import Chunk, ExtractedDocument

if TYPE_CHECKING:
    from langchain_core.documents import Document


class TextStore(Library, VectorStore):
    """LangChain's part of `KnowledgeBase`."""

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts that belong to no file, each as a document `text:<id>` with one chunk.

        A text with a known id replaces the older one. Without an id it gets one from its content
        and metadata, so adding the same again changes nothing. Metadata comes back as given. Of
        a text longer than the embedder reads, the head makes the vector; keyword search knows
        all of it.

        Returns:
            The ids.

        Raises:
            ConfigError: numbers of texts, metadatas and ids differ; metadata is not JSON.
        """
        texts = [records.storable(text) for text in texts]
        metadatas = metadatas if metadatas is not None else [{}] * len(texts)
        given: Sequence[str | None] = ids if ids is not None else [None] * len(texts)
        if not len(texts) == len(metadatas) == len(given):
            raise ConfigError(
                f"{len(texts)} texts need as many metadatas and ids, got {len(metadatas)} "
                f"and {len(given)}"
            )
        extras = [_as_json(metadata) for metadata in metadatas]
        keys = [
            key or _text_id(text, extra)
            for key, text, extra in zip(given, texts, extras, strict=True)
        ]
        vectors = self._checked(self.embed(texts), len(texts))
        # The last one of equal ids wins.
        added = dict(zip(keys, zip(texts, extras, vectors, strict=True), strict=True))
        with self._database.write() as connection:
            self._remember_embedder(connection, vectors)
            records.delete_chunks(connection, added)
            for key, (text, extra, vector) in added.items():
                document = _text_document(key, text, json.loads(extra))
                records.delete_document(connection, document.source)
                language = detect_language(text)
                document_id = records.insert_document(connection, document, language)
                chunk = Chunk(0, len(text), text)
                embedded = records.embedding_hash(self.embeddings_name, text)
                records.insert_chunk(
                    connection, document_id, 0, key, chunk, language, vector, embedded, extra
                )
        self._wrote()
        return keys

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete chunks by id, all of them if `ids` is None; unknown ids are ignored."""
        with self._database.write() as connection:
            if ids is None:
                records.delete_everything(connection)
            else:
                records.delete_chunks(connection, ids)
        self._wrote()
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The chunks with these ids, in the order asked for, without the unknown ones."""
        with self._database.read() as connection:
            found = reading.read_chunks(connection, "c.key", dict.fromkeys(ids))
        by_id = {chunk.document.id: chunk.document for chunk in found}
        return [by_id[key] for key in dict.fromkeys(ids) if key in by_id]

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
        return [(chunk.document, score) for chunk, score, _ in self._nearest(vector, k, filter)]

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """The `k` chunks nearest to a vector."""
        return [chunk.document for chunk, _, _ in self._nearest(embedding, k, filter)]

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
        return [found[i][0].document for i in chosen]

    def _nearest(
        self, embedding: Sequence[float], k: int, where: Mapping[str, Any] | None
    ) -> list[tuple[reading.StoredChunk, float, np.ndarray]]:
        vector = normalised(np.asarray(embedding, dtype=np.float32))
        with self._database.read() as connection:
            self._check_embedder()
            self._index.refresh(connection)
            allowed = None if where is None else filters.matching_ids(connection, where)
            found = self._index.search(vector, k, allowed=allowed)
            ids = [row_id for row_id, _ in found]
            chunks = {c.id: c for c in reading.read_chunks(connection, "c.id", ids)}
            return [(chunks[i], score, self._index.vector(i)) for i, score in found]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(1.0, max(0.0, (1 + cosine) / 2))


def _text_document(key: str, text: str, metadata: Mapping[str, Any]) -> ExtractedDocument:
    data = text.encode()
    title = metadata.get("title") or metadata.get("source") or text.strip()[:80]
    return ExtractedDocument(
        source=f"text:{key}",
        title=str(title),
        text=text,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        mtime=0.0,
        media_type="text/plain",
        parser_version="",
    )


def _text_id(text: str, extra: str) -> str:
    return hashlib.sha256(f"{extra}\0{text}".encode()).hexdigest()[:32]


def _as_json(metadata: Mapping[str, Any]) -> str:
    try:
        # NaN is no JSON: SQLite would refuse every search with a filter because of it.
        return records.storable(json.dumps(metadata, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"metadata must be JSON values: {error}") from error
