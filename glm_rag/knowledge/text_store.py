"""What LangChain asks of a vector store: texts that belong to no file, search by vector alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from glm_rag.knowledge import filters, reading, records
from glm_rag.knowledge.embedder import normalised
from glm_rag.knowledge.library import Library
from glm_rag.knowledge.texts import prepare_texts
from glm_rag.text import detect_language

if TYPE_CHECKING:
    from langchain_core.documents import Document


class TextStore(Library):
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
        given = prepare_texts(texts, metadatas, ids)
        keys = [text.key for text in given]
        vectors = self._checked(self.embed([text.text for text in given]), len(given))
        # The last one of equal ids wins.
        added = {text.key: (text, vector) for text, vector in zip(given, vectors, strict=True)}
        with self._database.write() as connection:
            self._remember_embedder(connection, vectors)
            records.delete_chunks(connection, added)
            for text, vector in added.values():
                document, chunk = text.document(), text.chunk()
                records.delete_document(connection, document.source)
                language = detect_language(text.text)
                document_id = records.insert_document(connection, document, language)
                embedded = records.embedding_hash(self.embeddings_name, text.text)
                records.insert_chunk(
                    connection,
                    document_id,
                    0,
                    text.key,
                    chunk,
                    language,
                    vector,
                    embedded,
                    text.extra,
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

    def _nearest(
        self, embedding: Sequence[float], k: int, where: Mapping[str, Any] | None
    ) -> list[tuple[Document, float, np.ndarray]]:
        vector = normalised(np.asarray(embedding, dtype=np.float32))
        with self._database.read() as connection:
            self._check_embedder()
            self._index.refresh(connection)
            allowed = None if where is None else filters.matching_ids(connection, where)
            found = self._index.search(vector, k, allowed=allowed)
            ids = [row_id for row_id, _ in found]
            chunks = {c.id: c for c in reading.read_chunks(connection, "c.id", ids)}
            return [(chunks[i].document, score, self._index.vector(i)) for i, score in found]
