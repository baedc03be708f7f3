"""A stored document with all that belongs to it, on its way from one place to another."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from glm_rag.knowledge import reading, records, sources
from glm_rag.text import chunk_language
from glm_rag.types import Chunk, DocumentInfo, ExtractedDocument, Language, chunk_id

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A chunk with all that is stored of it."""

    chunk: Chunk
    vector: np.ndarray
    embedded: str = ""
    key: str | None = None  # default: from source, start and content
    extra: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to be stored. `added_at` is seconds since 1970."""

    document: ExtractedDocument
    language: Language
    added_at: float
    chunks: Sequence[NewChunk] = field(default_factory=tuple)
    indexes: Sequence[int] | None = None  # places of the chunks; default: in order

    @property
    def keys(self) -> list[str]:
        """Ids of the chunks."""
        source = self.document.source
        return [c.chunk.id_for(source) if c.key is None else c.key for c in self.chunks]

    def language_of(self, item: NewChunk) -> Language:
        """Of a chunk; a text that was added without a file is in one language."""
        if item.extra is not None:
            return self.language
        return chunk_language(item.chunk.text, self.language)


def moved(new: NewDocument, info: DocumentInfo) -> NewDocument:
    """The document under another source, with what `info` says of the file there."""
    document = replace(
        new.document,
        source=info.source,
        container=info.container,
        title=info.title,
        size=info.size,
        mtime=info.mtime,
    )
    chunks = [
        replace(item, key=chunk_id(info.source, item.chunk.start, item.chunk.content_hash))
        if item.extra is None
        else item
        for item in new.chunks
    ]
    return replace(new, document=document, added_at=info.added_at, chunks=chunks)


def read_documents(connection: sqlite3.Connection, file: str) -> list[NewDocument]:
    """A file's own document and those of its members at any depth, in the order they were put."""
    rows = connection.execute(
        "WITH RECURSIVE inside (source) AS (VALUES (?1) UNION SELECT d.source FROM documents AS d "
        "JOIN inside AS i ON d.container = i.source) "
        "SELECT id, source, language, added_at FROM documents WHERE source IN inside "
        "ORDER BY source <> ?1, id",
        (file,),
    ).fetchall()
    return [_read(connection, *row) for row in rows]


def _read(
    connection: sqlite3.Connection, row_id: int, source: str, language: str, added_at: float
) -> NewDocument:
    (document, *_) = reading.read_extracted(connection, source)
    rows = connection.execute(
        "SELECT c.key, c.chunk_index, c.start_offset, c.end_offset, c.text, c.page, c.headings, "
        "c.table_header, c.section_start, c.section_end, c.extra, c.embedding_hash, v.vector "
        "FROM chunks AS c JOIN vectors AS v ON v.id = c.id WHERE c.document_id = ? "
        "ORDER BY c.chunk_index",
        (row_id,),
    ).fetchall()
    places = [row[1] for row in rows]
    chunks = list(_read_chunks(rows))
    return NewDocument(document, cast("Language", language), added_at, chunks, places)


def _read_chunks(rows: Sequence[tuple[Any, ...]]) -> Iterator[NewChunk]:
    for key, _, start, end, text, page, headings, header, *rest in rows:
        first, last, extra, embedded, vector = rest
        section = None if first is None else (first, last)
        yield NewChunk(
            Chunk(start, end, text, page, tuple(json.loads(headings)), header, section),
            np.frombuffer(vector, dtype="<f4"),
            embedded.hex() if embedded is not None else "",
            key,
            None if extra is None else json.loads(extra),
        )


def write_documents(connection: sqlite3.Connection, documents: Sequence[NewDocument]) -> None:
    """Put a file with its members in the place of its older version."""
    for new in documents:
        document = new.document
        copies = sources.make_room(connection, document.source, document.sha256)
        records.delete_chunks(connection, new.keys)
        row_id = records.insert_document(connection, document, new.language)
        connection.execute("UPDATE documents SET added_at = ? WHERE id = ?", (new.added_at, row_id))
        sources.restore_copies(connection, row_id, copies)
        places = range(len(new.chunks)) if new.indexes is None else new.indexes
        for place, key, item in zip(places, new.keys, new.chunks, strict=True):
            extra = None if item.extra is None else json.dumps(item.extra, ensure_ascii=False)
            embedded = bytes.fromhex(item.embedded) if item.embedded else None
            records.insert_chunk(
                connection,
                row_id,
                place,
                key,
                item.chunk,
                new.language_of(item),
                item.vector,
                embedded,
                extra,
            )
    names = [new.document.source for new in documents]
    sources.remove_members(connection, names[0], but=names)
