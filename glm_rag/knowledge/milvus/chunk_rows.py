"""Chunks as rows of Milvus, and back. Pure functions."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from langchain_core.documents import Document

from glm_rag.knowledge import records
from glm_rag.knowledge.milvus.client import MOST_BYTES, Row
from glm_rag.knowledge.portable import NewDocument
from glm_rag.knowledge.reading import cited
from glm_rag.types import Chunk, Language

_NO_PAGE = -1
_MOST_TERMS = MOST_BYTES // 14  # thirteen characters and a space
_SPOTS = 1 << 32

# Everything of a chunk but its vectors.
CHUNK_FIELDS = (
    "pk", "key", "doc", "root", "version", "source", "title", "container", "page", "start", "end",
    "chunk_index", "content_hash", "language", "num_terms", "is_text", "extra", "terms", "text",
    "body",
)  # fmt: skip
# What a row is written again with.
ALL_FIELDS = (
    *CHUNK_FIELDS, "document_language", "added_at", "mtime", "embedded", "spot", "vector",
)  # fmt: skip


def chunk_rows(new: NewDocument, root: str, version: str, doc: str) -> Iterator[Row]:
    """The rows of the chunks of a document; `doc`: id of its version."""
    document = new.document
    places = new.indexes if new.indexes is not None else range(len(new.chunks))
    for index, key, item in zip(places, new.keys, new.chunks, strict=True):
        chunk = item.chunk
        found = records.search_terms(chunk.headings, chunk.table_header, chunk.text)
        body = {
            "headings": list(chunk.headings),
            "table_header": chunk.table_header,
            "section": chunk.section,
        }
        pk = chunk_key(doc, key)
        yield {
            "pk": pk,
            "key": key,
            "doc": doc,
            "root": root,
            "version": version,
            "source": document.source,
            "title": records.storable(document.title),
            "container": document.container,
            "page": _NO_PAGE if chunk.page is None else chunk.page,
            "start": chunk.start,
            "end": chunk.end,
            "chunk_index": index,
            "content_hash": chunk.content_hash,
            "embedded": item.embedded,
            "language": new.language_of(item),
            "document_language": new.language,
            "added_at": new.added_at,
            "mtime": document.mtime,
            "num_terms": len(found),
            "spot": int(pk[:8], 16) % _SPOTS,
            "is_text": item.extra is not None,
            "extra": item.extra or {},
            "terms": encoded_terms(found),
            # What does not fit is read from the document.
            "text": chunk.text if len(chunk.text.encode()) <= MOST_BYTES else "",
            "body": json.dumps(body, ensure_ascii=False),
            "vector": np.asarray(item.vector, dtype=np.float32),
        }


def chunk_key(doc: str, key: str) -> str:
    """Primary key of a chunk in a version of its document."""
    return hashlib.sha256(f"{doc}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def encode_term(term: str) -> str:
    """A search term in letters and digits that no tokenizer takes apart."""
    digest = hashlib.blake2b(term.encode(), digest_size=6).hexdigest()
    return f"t{digest}"


def encoded_terms(found: Sequence[str]) -> str:
    """Search terms as they are stored; of more than fit, each once, the first 4,681."""
    codes = {term: encode_term(term) for term in found}
    if len(found) > _MOST_TERMS:
        found = list(codes)[:_MOST_TERMS]
    return " ".join(codes[term] for term in found)


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A chunk read back: as `reading.StoredChunk`, with its row."""

    row: Row
    document: Document
    known: dict[str, Any]

    @property
    def language(self) -> Language:
        """Of the chunk."""
        return cast("Language", self.row["language"])

    @property
    def order(self) -> tuple[str, int]:
        """Sorts as chunks were stored."""
        return self.row["doc"], self.row["chunk_index"]

    def passage(self) -> Document:
        """The document with all that a citation needs."""
        return cited(self.document, self.known)

    def count(self, wanted: Sequence[str]) -> dict[str, int]:
        """How often each wanted term occurs, without those that do not."""
        if self.row["num_terms"] <= _MOST_TERMS:
            counts = Counter(self.row["terms"].split(" "))
            found = {term: counts[encode_term(term)] for term in wanted}
        else:
            known = self.known
            text = self.document.page_content
            all_terms = Counter(
                records.search_terms(known["headings"], known.get("table_header", ""), text)
            )
            found = {term: all_terms[term] for term in wanted}
        return {term: number for term, number in found.items() if number}


def stored_row(row: Row) -> StoredRow:
    """A chunk's row as documents; its text must be in it."""
    body = json.loads(row["body"])
    known: dict[str, Any] = {
        "source": row["source"],
        "title": row["title"],
        "page": None if row["page"] == _NO_PAGE else row["page"],
        "headings": body["headings"],
        "start": row["start"],
        "end": row["end"],
        "chunk_index": row["chunk_index"],
        "content_hash": row["content_hash"],
        "language": row["language"],
    }
    if body["table_header"]:
        known["table_header"] = body["table_header"]
    if body["section"] is not None:
        known["section"] = list(body["section"])
    if row["container"]:
        known["container"] = row["container"]
    metadata = row["extra"] if row["is_text"] else known
    document = Document(id=row["key"], page_content=row["text"], metadata=metadata)
    return StoredRow(row, document, known)


def chunk_of(row: Row) -> Chunk:
    """A chunk's row as it was put."""
    body = json.loads(row["body"])
    section = body["section"]
    return Chunk(
        row["start"],
        row["end"],
        row["text"],
        None if row["page"] == _NO_PAGE else row["page"],
        tuple(body["headings"]),
        body["table_header"],
        None if section is None else (section[0], section[1]),
    )
