"""Rows become documents and chunks again. Every function works inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from langchain_core.documents import Document

from glm_rag.knowledge import records
from glm_rag.types import DocumentInfo, ExtractedDocument, Language, PageSpan

_INFO_FIELDS = tuple(field.name for field in fields(DocumentInfo))


def cited(document: Document, known: Mapping[str, Any]) -> Document:
    """A chunk's document with all that a citation needs.

    Offsets refer to the stored text: they are left out where the metadata names a source of its
    own.

    Args:
        known: what is known of the chunk, whatever it was added with.
    """
    given = document.metadata
    names = ("title", "language") if "source" in given else tuple(known)
    metadata = {**{name: known[name] for name in names}, **given}
    return Document(id=document.id, page_content=document.page_content, metadata=metadata)


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk read back.

    Attributes:
        document: with the metadata it was added with, or what is known of a chunk of a file.
        known: what is known of the chunk, whatever it was added with.
    """

    id: int
    document: Document
    known: dict[str, Any]
    language: Language
    num_terms: int
    terms: bytes

    def passage(self) -> Document:
        """The document with all that a citation needs."""
        return cited(self.document, self.known)

    def count(self, wanted: Sequence[str]) -> dict[str, int]:
        """How often each wanted term occurs, without those that do not."""
        counts = Counter(records.unpack(self.terms))
        return {term: counts[term] for term in wanted if term in counts}


def read_chunks(
    connection: sqlite3.Connection,
    column: Literal["c.id", "c.key", "d.source"],
    values: Iterable[int | str],
) -> list[StoredChunk]:
    """Chunks whose column has one of the values, in the order of the documents."""
    found: list[StoredChunk] = []
    for batch in records.batches(values):
        rows = connection.execute(
            "SELECT c.id, c.key, c.text, d.source, d.title, c.page, c.headings, c.start_offset, "
            "c.end_offset, c.chunk_index, c.content_hash, c.language, c.extra, c.num_terms, "
            "c.terms, c.table_header, c.section_start, c.section_end, d.container "
            "FROM chunks AS c JOIN documents AS d ON d.id = c.document_id "
            f"WHERE {column} IN ({records.marks(batch)}) ORDER BY c.document_id, c.chunk_index",
            batch,
        )
        found.extend(_stored_chunk(row) for row in rows)
    return found


def read_infos(connection: sqlite3.Connection, source: str | None = None) -> list[DocumentInfo]:
    """What is known of every document, or of one, by its own source."""
    where = "" if source is None else "WHERE source = ?"
    rows = connection.execute(
        "SELECT source, title, sha256, size, mtime, media_type, parser_version, language, "
        "(SELECT count(*) FROM chunks WHERE document_id = documents.id), num_characters, "
        "added_at, warnings, coalesce(container, ''), (SELECT json_group_array(source) FROM "
        "(SELECT source FROM copies WHERE document_id = documents.id ORDER BY source)) "
        f"FROM documents {where} ORDER BY source",
        () if source is None else (source,),
    )
    known = [dict(zip(_INFO_FIELDS, row, strict=True)) for row in rows]
    lists = ("warnings", "copies")
    return [
        DocumentInfo(**{**info, **{name: tuple(json.loads(info[name])) for name in lists}})
        for info in known
    ]


@dataclass(frozen=True, slots=True)
class Copy:
    """Another file with the bytes of the document whose own source is `of`."""

    source: str
    of: str
    size: int
    mtime: float
    added_at: float


def read_copies(connection: sqlite3.Connection, source: str | None = None) -> list[Copy]:
    """Every copy, or one."""
    where = "" if source is None else "WHERE c.source = ?"
    rows = connection.execute(
        "SELECT c.source, d.source, c.size, c.mtime, c.added_at FROM copies AS c "
        f"JOIN documents AS d ON d.id = c.document_id {where} ORDER BY c.source",
        () if source is None else (source,),
    )
    return [Copy(*row) for row in rows]


def as_copy(info: DocumentInfo, copy: Copy) -> DocumentInfo:
    """What is known of a document, seen from one of its copies."""
    others = tuple(sorted({info.source, *info.copies} - {copy.source}))
    return replace(
        info,
        source=copy.source,
        size=copy.size,
        mtime=copy.mtime,
        added_at=copy.added_at,
        copies=others,
    )


def read_extracted(connection: sqlite3.Connection, source: str) -> list[ExtractedDocument]:
    """The document of a file, then those of its members, in the order they were inserted."""
    names = tuple(field.name for field in fields(ExtractedDocument))
    rows = connection.execute(
        f"SELECT {', '.join(names)} FROM documents WHERE source = ?1 OR container = ?1 "
        "ORDER BY source <> ?1, id",
        (source,),
    )
    return [_extracted(dict(zip(names, row, strict=True))) for row in rows]


def _extracted(row: dict[str, Any]) -> ExtractedDocument:
    pages = tuple(PageSpan(*page) for page in json.loads(row["pages"]))
    warnings = tuple(json.loads(row["warnings"]))
    container = row["container"] or ""
    return ExtractedDocument(
        **{**row, "pages": pages, "warnings": warnings, "container": container}
    )


def _stored_chunk(row: tuple[Any, ...]) -> StoredChunk:
    row_id, key, text, source, title, page, headings, start, end, *rest = row
    chunk_index, content_hash, language, extra, num_terms, packed, *around = rest
    table_header, section_start, section_end, container = around
    known: dict[str, Any] = {
        "source": source,
        "title": title,
        "page": page,
        "headings": json.loads(headings),
        "start": start,
        "end": end,
        "chunk_index": chunk_index,
        "content_hash": content_hash,
        "language": language,
    }
    if table_header:
        known["table_header"] = table_header
    if section_start is not None:
        known["section"] = [section_start, section_end]
    if container:
        known["container"] = container
    given = json.loads(extra) if extra is not None else None
    document = Document(id=key, page_content=text, metadata=known if given is None else given)
    return StoredChunk(row_id, document, known, language, num_terms, packed)
