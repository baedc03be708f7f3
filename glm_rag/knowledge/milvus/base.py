"""MilvusKnowledgeBase: a `KnowledgeBase` whose rows lie in Milvus, for several machines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from glm_rag.config import default_home
from glm_rag.knowledge.embedder import normalised
from glm_rag.knowledge.growth import MOST_AROUND, Place, grow_in
from glm_rag.knowledge.milvus import sampling
from glm_rag.knowledge.milvus.catalogue import Files, State
from glm_rag.knowledge.milvus.chunk_rows import StoredRow
from glm_rag.knowledge.milvus.client import quoted
from glm_rag.knowledge.milvus.library import MilvusLibrary
from glm_rag.knowledge.milvus.naming import Location, existing_stem
from glm_rag.knowledge.milvus.rows import DocRow
from glm_rag.knowledge.sampling import Sketch
from glm_rag.retrieval.calibration import Calibration, calibration_to_json
from glm_rag.retrieval.candidates import CandidateSet, Reach
from glm_rag.types import Language

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings

_CENTRAL_BATCH = 256


class MilvusKnowledgeBase(MilvusLibrary):
    """What `KnowledgeBase` does, over Milvus: all of it lies there, so that another machine with
    the same URI sees the same. Any thread may use it. Use `open`.

    A file is put all at once: a reader sees its old chunks or its new ones. Several machines may
    write; where two put the same file, the one that ends last counts.

    Raises:
        KnowledgeBaseError: Milvus does not answer, or it was built with another embedder.
    """

    @classmethod
    def open(
        cls,
        name: str = "default",
        *,
        location: Location,
        home: Path | None = None,
        embeddings: Embeddings | None = None,
        create: bool = False,
    ) -> Self:
        """Open the knowledge base of that name.

        Args:
            location: of Milvus.
            home: data folder of this machine; what is not shared lies there: the lock of long
                writers, and the words of prompts.

        Raises:
            ConfigError: `name` cannot name a knowledge base.
            KnowledgeBaseNotFoundError: there is none of that name and `create` is false.
            KnowledgeBaseError: as the class says.
        """
        milvus = location.connect()
        try:
            stem = existing_stem(milvus, name, create=create)
            home = default_home() if home is None else Path(home)
            return cls(name, milvus, stem, location.folder(home, name), embeddings=embeddings)
        except BaseException:
            milvus.close()
            raise

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        name: str = "default",
        location: Location | None = None,
        home: Path | None = None,
        **kwargs: Any,
    ) -> Self:
        """Open or make a knowledge base and add the texts."""
        kb = cls.open(
            name,
            location=location or Location(),
            home=home,
            embeddings=embedding,
            create=True,
        )
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
        """As `KnowledgeBase.candidates`; on a cluster the nearest are those of its index."""
        others = {str(name): other for name, other in (vectors or {}).items()}
        state = self._asked_state()
        return self._searches.candidates(
            state,
            normalised(vector),
            list(dict.fromkeys(terms)),
            others,
            limit=limit,
            where=where,
            with_vectors=with_vectors,
        )

    def _nearest(
        self, embedding: Sequence[float], k: int, where: Mapping[str, Any] | None
    ) -> list[tuple[Document, float, np.ndarray]]:
        vector = normalised(np.asarray(embedding, dtype=np.float32))
        found = self._searches.nearest(self._asked_state(), vector, k, where)
        return [(row.document, score, own) for row, score, own in found]

    def store_calibration(self, calibration: Calibration | None) -> None:
        """Use these constants from now on; None: those of the embedder again."""
        if calibration is None:
            self._milvus.delete_keys(self._rows.meta, ["fact:calibration"])
        else:
            stored = f"{self.embeddings_name}\n{calibration_to_json(calibration)}"
            self._set_facts({"calibration": stored})

    def grow(
        self,
        document: Document,
        reach: Reach,
        *,
        fits: Callable[[str], bool],
        without: Collection[str] = (),
    ) -> Document:
        """A passage with the chunks around it, as `KnowledgeBase.grow`."""
        state = self._rows.state()
        rows = self._searches.by_key(state, [document.id] if document.id else [])
        own = next((row for row in rows if not row.row["is_text"]), None)
        if own is None:
            return document

        def read(_: Files, doc: DocRow) -> tuple[str, dict[int, Place]]:
            return self._rows.text(doc), self._around(state, own, doc.doc)

        found = self._steadily(own.row["source"], read)
        if found is None:
            return document
        text, around = found
        place = around.get(own.row["chunk_index"])
        if place is None or place.key != document.id:
            return document
        return grow_in(document, text, place, around, reach, fits, frozenset(without))

    def _around(self, state: State, own: StoredRow, doc: str) -> dict[int, Place]:
        """The places of the chunks around one, of its section, by index."""
        index, section = own.row["chunk_index"], own.known.get("section")
        test = (
            f"doc == {quoted(doc)} and chunk_index >= {index - MOST_AROUND} "
            f"and chunk_index <= {index + MOST_AROUND}"
        )
        near = [row for row in self._searches.rows(state, test) if not row.row["is_text"]]
        places = (_place(row) for row in near if row.known.get("section") == section)
        return {place.index: place for place in places}

    # ------------------------------------------------------------ some of the passages

    def central_passages(self) -> Iterator[Document]:
        """All passages, most central first, as `KnowledgeBase.central_passages`."""
        state = self._rows.state()
        ordered = sampling.central_keys(self._searches, state)
        for start in range(0, len(ordered), _CENTRAL_BATCH):
            yield from self._passages(state, ordered[start : start + _CENTRAL_BATCH])

    def sample_passages(self, limit: int, *, per_document: int, seed: int = 0) -> list[Document]:
        """Passages by chance, at most `limit`, and of each document at most `per_document`."""
        state = self._rows.state()
        keys = sampling.sample_keys(self._searches, state, limit, per_document, seed)
        return self._passages(state, keys)

    def sample_vectors(self, limit: int) -> dict[Language, np.ndarray]:
        """Vectors of passages taken by chance from those of each language, `[<= limit, D]`."""
        return sampling.sample_vectors(self._searches, self._rows.state(), limit)

    def sketch_passages(self, limit: int) -> tuple[list[Sketch], np.ndarray]:
        """At most `limit` passages, taken by chance, and their vectors `[N, dimension]`."""
        return sampling.sketch(self._searches, self._rows.state(), limit)

    def vectors_of(self, ids: Iterable[str]) -> dict[str, np.ndarray]:
        """Vectors of chunks by id, `[dimension]` each; unknown ids are left out."""
        keys = list(dict.fromkeys(ids))
        rows = self._searches.by_key(self._rows.state(), keys, vectors=True)
        return {row.row["key"]: np.asarray(row.row["vector"], np.float32) for row in rows}

    def _passages(self, state: State, keys: Sequence[str]) -> list[Document]:
        found = {row.row["pk"]: row for row in sampling.by_primary_key(self._searches, state, keys)}
        return [found[key].passage() for key in keys if key in found]


def _place(row: StoredRow) -> Place:
    section = row.known.get("section")
    return Place(
        row.row["key"],
        row.row["chunk_index"],
        row.row["start"],
        row.row["end"],
        row.known["page"],
        row.known.get("table_header", ""),
        None if section is None else section[0],
    )
