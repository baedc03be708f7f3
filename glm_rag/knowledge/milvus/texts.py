"""Texts that belong to no file, and chunks by their ids, in Milvus."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from glm_rag.knowledge import records
from glm_rag.knowledge.milvus.client import Row, batched
from glm_rag.knowledge.milvus.keeping import KeepsRows
from glm_rag.knowledge.milvus.planning import placeholder, plan
from glm_rag.knowledge.milvus.rows import DocRow
from glm_rag.knowledge.milvus.writing import Extra
from glm_rag.knowledge.portable import NewChunk, NewDocument
from glm_rag.knowledge.texts import GivenText, prepare_texts
from glm_rag.text import detect_language

if TYPE_CHECKING:
    import numpy as np
    from langchain_core.documents import Document

_TEXTS_AT_ONCE = 200


class MilvusTexts(KeepsRows):
    """LangChain's part of `MilvusKnowledgeBase`."""

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The chunks with these ids, in the order asked for, without the unknown ones."""
        keys = list(dict.fromkeys(ids))
        rows = self._searches.by_key(self._rows.state(), keys)
        by_key = {row.row["key"]: row.document for row in rows}
        return [by_key[key] for key in keys if key in by_key]

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
            change = plan(files, lambda c, s=source: ignore(records.delete_document(c, s)))  # type: ignore[misc]
            self._apply(state, files, change, Extra())
        self._writer.note_change()
        return True


def _less(doc: DocRow, gone: Sequence[Row]) -> DocRow:
    """The document without some of its chunks."""
    info = replace(doc.info, num_chunks=doc.info.num_chunks - len(gone))
    return replace(doc, info=info, num_terms=doc.num_terms - sum(r["num_terms"] for r in gone))


def _remove_all(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM documents")


def ignore(_: object) -> None:
    """An operation gives nothing."""
