"""Documents, failures, texts and totals of a knowledge base in Milvus."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import lock, records, sources, storing
from glm_rag.knowledge.milvus import catalogue, rebuilding, verifying
from glm_rag.knowledge.milvus.catalogue import Files, State
from glm_rag.knowledge.milvus.chunk_rows import ALL_FIELDS
from glm_rag.knowledge.milvus.client import quoted
from glm_rag.knowledge.milvus.planning import placeholder, plan
from glm_rag.knowledge.milvus.rows import DocRow
from glm_rag.knowledge.milvus.tables import hashed
from glm_rag.knowledge.milvus.texts import MilvusTexts, ignore
from glm_rag.knowledge.milvus.writing import Extra
from glm_rag.knowledge.portable import NewChunk, NewDocument
from glm_rag.text import detect_language
from glm_rag.types import (
    Chunk,
    DocumentInfo,
    ExtractedDocument,
    IngestFailure,
    KnowledgeBaseInfo,
    VerifyReport,
)

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings


class MilvusLibrary(MilvusTexts):
    """The part of `MilvusKnowledgeBase` that is about documents."""

    # ------------------------------------------------------------ documents

    def put_documents(
        self,
        items: Sequence[tuple[ExtractedDocument, Sequence[Chunk], np.ndarray]],
        failures: Sequence[IngestFailure] = (),
    ) -> Literal["added", "updated"]:
        """Store a file with its members, all or nothing, in place of its older version.

        As `KnowledgeBase.put_documents`; errors, too.
        """
        prepared = [self._prepared(*item) for item in items]
        names = [item.document.source for item in prepared]
        if len(set(names)) != len(names):
            raise KnowledgeBaseError(f"{names[0]}: two of its documents have the same source")
        now = time.time()
        new = {item.document.source: _new_document(item, now) for item in prepared}
        return self._put(names[0], new, failures)

    def _put(
        self, file: str, new: Mapping[str, NewDocument], failures: Sequence[IngestFailure]
    ) -> Literal["added", "updated"]:
        """Put a file; the first of `new` is its own document."""
        state = self._ready(np.stack([
            chunk.vector for document in new.values() for chunk in document.chunks
        ]) if any(document.chunks for document in new.values()) else np.zeros((0, 1)))  # fmt: skip
        self._take_back(state, new)
        files = self._rows.find(new, whole=True)

        def operation(connection: sqlite3.Connection) -> None:
            for document in new.values():
                empty = np.zeros((0, 1), dtype=np.float32)
                own = placeholder(document.document)
                storing.put(connection, storing.Prepared(own, (), empty, ()))
            sources.remove_members(connection, file, but=list(new))

        existed = files.own(file) is not None
        change = plan(files, operation, new, lambda _: hashed(file))
        extra = self._failed(file, failures)
        extra.pending = [
            f"pending:{chunk.embedded}" for document in new.values() for chunk in document.chunks
            if chunk.embedded
        ]  # fmt: skip
        self._apply(state, files, change, extra)
        return "updated" if existed else "added"

    def _take_back(self, state: State, new: Mapping[str, NewDocument]) -> None:
        """Somebody may have given a text of their own the id of one of these chunks."""
        if state.chunks is None:
            return
        keys = [key for document in new.values() for key in document.keys]
        foreign = [
            row.row["key"]
            for row in self._searches.by_key(state, keys)
            if row.row["source"] not in new
        ]
        if foreign:
            self.delete(foreign)

    def _failed(self, source: str, failures: Sequence[IngestFailure] = ()) -> Extra:
        """Failures of a file and its members, in place of earlier ones."""
        kept = {failure.source for failure in failures}
        before = self._rows.failures(catalogue.of_file(source))
        forgotten = [catalogue.failure_key(f.source) for f in before if f.source not in kept]
        return Extra([_storable(failure) for failure in failures], forgotten)

    def read_file(self, source: str) -> list[NewDocument]:
        """A file's own document and those of its members, with all that belongs to them."""
        state = self._rows.state()

        def read(files: Files, own: DocRow) -> list[NewDocument]:
            inside = [own.info.source]
            for name in inside:
                inside += [s for s, doc in files.docs.items() if doc.info.container == name]
            first, *rest = (files.docs[name] for name in inside)
            return [self.content(state, doc) for doc in [first, *sorted(rest, key=_order)]]

        return self._steadily(source, read, whole=True) or []

    def write_file(self, documents: Sequence[NewDocument]) -> None:
        """Put a file as `read_file` gives it, all or nothing."""
        new = {document.document.source: document for document in documents}
        self._put(documents[0].document.source, new, ())

    def write_copy(self, source: str, *, of: str, info: DocumentInfo) -> None:
        """Note a copy with all that is known of it."""
        self.add_copy(source, of=of, size=info.size, mtime=info.mtime)
        copy = self._rows.find([source]).copies[source]
        self._milvus.upsert(self._rows.docs, [replace(copy, added_at=info.added_at).row()])

    def add_copy(self, source: str, *, of: str, size: int, mtime: float) -> None:
        """Note that a file has the same bytes as one that is here, as `KnowledgeBase.add_copy`."""
        state = self._ready()
        files = self._rows.find([source, of], whole=True)
        change = plan(
            files, lambda connection: sources.add_copy(connection, source, of, size=size,
                                                       mtime=mtime)
        )  # fmt: skip
        self._apply(state, files, change, self._failed(source))

    def remove(self, source: str) -> bool:
        """Remove a document with its chunks and members, or a copy; false if there is none.

        What another file holds too stays, under that file's source.
        """
        state = self._ready()
        files = self._rows.find([source], whole=True)
        known = files.own(source) is not None
        change = plan(files, lambda connection: ignore(sources.remove(connection, source)))
        extra = self._failed(source)
        if known or extra.forgotten:
            self._apply(state, files, change, extra)
        return known

    def touch(self, source: str, *, size: int, mtime: float) -> None:
        """Note that a file, or a copy, has a new time but the same bytes."""
        files = self._rows.find([source])
        if source in files.copies:
            copy = replace(files.copies[source], size=size, mtime=mtime)
            self._milvus.upsert(self._rows.docs, [copy.row()])
            return
        doc = files.docs.get(source)
        state = self._rows.state()
        if doc is None:
            return
        doc = replace(doc, info=replace(doc.info, size=size, mtime=mtime))
        if state.chunks is not None:
            # A filter by time asks the chunks.
            rows = self._milvus.scan(state.chunks, f"doc == {quoted(doc.doc)}", ALL_FIELDS)
            self._milvus.upsert(state.chunks, [{**row, "mtime": mtime} for row in rows])
        self._milvus.upsert(self._rows.docs, [doc.row()])

    def get_document(self, source: str) -> DocumentInfo | None:
        """What is known of a document, None if it is not here; of a copy, with its own source."""
        return self._rows.find([source]).info(source)

    def find_by_content(self, sha256: str, *, suffix: str = "") -> DocumentInfo | None:
        """A document made from a file with these bytes, whose source ends so."""
        found = self._rows.by_content(sha256)
        return next((info for info in found if info.source.endswith(suffix)), None)

    def change(self) -> int:
        """Tells what passages there are: the same number means the same ones."""
        return self._rows.state().change

    def known_sources(self) -> dict[str, DocumentInfo]:
        """What `get_document` gives for every source, copies included."""
        files = self._rows.everything()
        return {name: info for name in [*sorted(files.docs), *sorted(files.copies)]
                if (info := files.info(name)) is not None}  # fmt: skip

    def documents(self) -> list[DocumentInfo]:
        """All documents, by source."""
        files = self._rows.everything()
        found = (files.info(source) for source in sorted(files.docs))
        return [info for info in found if info is not None]

    def get_text(self, source: str) -> str:
        """The extracted text that all offsets of a document refer to.

        Raises:
            KnowledgeBaseError: no such document.
        """
        text = self._steadily(source, lambda _, doc: self._rows.text(doc))
        if text is None:
            raise KnowledgeBaseError(
                f"knowledge base {self.name!r} has no document {source}: "
                f"glm-rag kb documents --kb {self.name} lists them"
            )
        return text

    def get_extracted(self, source: str) -> list[ExtractedDocument]:
        """A file's document and those of its members as they were put, to cut them again.

        Raises:
            KnowledgeBaseError: no such document.
        """

        def read(files: Files, own: DocRow) -> list[ExtractedDocument]:
            members = [d for d in files.docs.values() if d.info.container == own.info.source]
            members.sort(key=lambda doc: doc.order)
            return [self._extracted(doc) for doc in [own, *members]]

        found = self._steadily(source, read, whole=True)
        if found is None:
            raise KnowledgeBaseError(f"knowledge base {self.name!r} has no document {source}")
        return found

    def get_chunks(self, source: str) -> list[Document]:
        """The chunks of a document in order; none if it is not here."""
        state = self._rows.state()
        rows = self._steadily(source, lambda _, doc: self._searches.of_document(state, doc.doc))
        return [row.document for row in rows or ()]

    # ------------------------------------------------------------ failures and totals

    def record_failure(self, failure: IngestFailure) -> None:
        """Keep why a source could not be ingested, in place of what was kept before."""
        self._milvus.upsert(self._rows.docs, [catalogue.failure_row(_storable(failure))])

    def clear_failure(self, source: str) -> None:
        """Forget the failure of a source."""
        self._milvus.delete_keys(self._rows.docs, [catalogue.failure_key(source)])

    def failures(self) -> list[IngestFailure]:
        """All failures, by source."""
        return self._rows.failures()

    def info(self) -> KnowledgeBaseInfo:
        """Totals; how much room it takes is Milvus' secret, so its size is 0."""
        state = self._rows.state()
        docs = list(self._rows.everything().docs.values())
        languages: dict[str, int] = {}
        for doc in docs:
            languages[doc.info.language] = languages.get(doc.info.language, 0) + 1
        return KnowledgeBaseInfo(
            name=self.name,
            path=self._milvus.place,
            num_documents=len(docs),
            num_chunks=sum(doc.info.num_chunks for doc in docs),
            num_failures=len(self._rows.failures()),
            embeddings=self.embeddings_name,
            dimension=state.dimension,
            size_bytes=0,
            languages=dict(sorted(languages.items())),
        )

    def writing(
        self, *, wait: float | None = None, on_wait: Callable[[str], None] | None = None
    ) -> AbstractContextManager[None]:
        """Hold the lock that only one long writer of this machine holds at a time.

        Other machines do not ask for it: see the class for what holds where several write.

        Raises:
            KnowledgeBaseError: another one holds it, or the data folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise KnowledgeBaseError(
                f"cannot write into {self.path}: {error.strerror}; choose another data folder "
                "with GLM_RAG_HOME"
            ) from error
        advice = "wait for it with --wait" if wait is None else "try again later"
        return lock.writing(self.path, self.name, wait=wait, on_wait=on_wait, advice=advice)

    # ------------------------------------------------------------ proof and repair

    def verify(self, *, on_progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Derive everything again from the stored texts and compare; nothing is written."""
        return verifying.verify(self.name, self._rows, on_progress)

    def rebuild(
        self,
        *,
        embed: bool = False,
        embeddings: Embeddings | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        """Make the collection of chunks again from the texts, and sweep what does not count.

        Readers see the old one until it is done. A killed run leaves the old one; the next goes
        on. No other machine may write meanwhile: it is told to run again.

        Args:
            embed: compute all vectors anew, too.
            embeddings: with another embedder, which is then remembered.
            on_progress: gets what is being done, the number of chunks done, and of all.
        """
        with self.writing():
            chosen = (embeddings or self.embeddings) if embed else embeddings
            name = rebuilding.rebuild(self, self._rows, self._writer, chosen, on_progress)
            if chosen is not None:
                self._embeddings, self.embeddings_name = chosen, name

    def close(self) -> None:
        """Let go of the connection."""
        self._milvus.close()

    def _quoted(self, citation: Mapping[str, Any]) -> str:
        doc = self._rows.find([str(citation["source"])]).own(str(citation["source"]))
        if doc is not None:
            text = self._rows.text(doc)
        else:
            # The offsets of a text with a source of its own are those of the chunk.
            rows = self._searches.by_key(self._rows.state(), [str(citation["chunk_id"])])
            text = rows[0].document.page_content if rows else ""
        return text[citation["start"] : citation["end"]]


def _new_document(item: storing.Prepared, now: float) -> NewDocument:
    chunks = [
        NewChunk(chunk, vector, embedded.hex())
        for chunk, vector, embedded in zip(item.chunks, item.vectors, item.hashes, strict=True)
    ]
    return NewDocument(item.document, detect_language(item.document.text), now, chunks)


def _storable(failure: IngestFailure) -> IngestFailure:
    return replace(failure, error=records.storable(failure.error))


def _order(doc: DocRow) -> str:
    return doc.order
