"""Documents and chunks as rows. Every function works inside the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

import numpy as np
from langchain_core.documents import Document

from glm_rag.text import terms
from glm_rag.types import (
    Chunk,
    DocumentInfo,
    ExtractedDocument,
    IngestFailure,
    Language,
    PageSpan,
)

_SURROGATE = re.compile("[\ud800-\udfff]")
# SQLite's own limit on parameters is 32,766 and more.
_BATCH = 10_000
_INFO_FIELDS = tuple(field.name for field in fields(DocumentInfo))


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
        """The document with all that a citation needs.

        Offsets refer to the stored text: they are left out where the metadata names a source of
        its own.
        """
        given = self.document.metadata
        names = ("title", "language") if "source" in given else tuple(self.known)
        metadata = {**{name: self.known[name] for name in names}, **given}
        return Document(
            id=self.document.id, page_content=self.document.page_content, metadata=metadata
        )

    def count(self, wanted: Sequence[str]) -> dict[str, int]:
        """How often each wanted term occurs, without those that do not."""
        counts = Counter(unpack(self.terms))
        return {term: counts[term] for term in wanted if term in counts}


def storable(text: str) -> str:
    """Replace lone surrogates, one character by one, since SQLite keeps UTF-8."""
    return _SURROGATE.sub("\ufffd", text)


def insert_document(
    connection: sqlite3.Connection, document: ExtractedDocument, language: Language
) -> int:
    """Insert a document and give its row id."""
    pages = [[page.number, page.start, page.end] for page in document.pages]
    cursor = connection.execute(
        "INSERT INTO documents (source, title, language, sha256, size, mtime, media_type, "
        "parser_version, pages, warnings, added_at, num_characters, text, container) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            document.source,
            storable(document.title),
            language,
            document.sha256,
            document.size,
            document.mtime,
            document.media_type,
            document.parser_version,
            json.dumps(pages),
            json.dumps([storable(warning) for warning in document.warnings]),
            time.time(),
            len(document.text),
            document.text,
            document.container or None,
        ),
    )
    return cast("int", cursor.lastrowid)


def insert_chunk(
    connection: sqlite3.Connection,
    document_id: int,
    chunk_index: int,
    key: str,
    chunk: Chunk,
    language: Language,
    vector: np.ndarray,
    embedding_hash: bytes,
    extra: str | None = None,
) -> None:
    """Insert one chunk with its vector and its search terms."""
    found = search_terms(chunk.headings, chunk.text)
    cursor = connection.execute(
        "INSERT INTO chunks (key, document_id, chunk_index, start_offset, end_offset, page, "
        "language, num_terms, content_hash, headings, extra, terms, text, table_header, "
        "section_start, section_end, embedding_hash) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key,
            document_id,
            chunk_index,
            chunk.start,
            chunk.end,
            chunk.page,
            language,
            len(found),
            chunk.content_hash,
            json.dumps(chunk.headings, ensure_ascii=False),
            extra,
            pack(found),
            chunk.text,
            chunk.table_header,
            *(chunk.section or (None, None)),
            embedding_hash,
        ),
    )
    connection.execute("INSERT INTO vectors VALUES (?, ?)", (cursor.lastrowid, blob(vector)))
    connection.execute(
        "INSERT INTO chunk_terms (rowid, terms) VALUES (?, ?)", (cursor.lastrowid, " ".join(found))
    )


def search_terms(headings: Sequence[str], text: str) -> list[str]:
    """What a chunk is found by word by."""
    return terms("\n".join((*headings, text)))


def blob(vector: np.ndarray) -> bytes:
    """A vector as it is stored."""
    return np.asarray(vector, dtype="<f4").tobytes()


def embedding_hash(embedder: str, text: str) -> bytes:
    """What a vector is found again by: 16 bytes for an embedder and a text."""
    return hashlib.sha256(f"{embedder}\0{text}".encode("utf-8", "surrogatepass")).digest()[:16]


_PENDING = "SELECT embedding_hash, vector FROM pending_vectors WHERE embedding_hash IN (%s)"
_STORED = (
    "SELECT c.embedding_hash, v.vector FROM chunks AS c JOIN vectors AS v ON v.id = c.id "
    "WHERE c.embedding_hash IN (%s)"
)


def find_vectors(
    connection: sqlite3.Connection, hashes: Iterable[bytes]
) -> dict[bytes, np.ndarray]:
    """The vectors, pending or of a chunk, that were computed for these hashes."""
    wanted = list(dict.fromkeys(hashes))
    return {**_vectors(connection, _STORED, wanted), **find_pending(connection, wanted)}


def find_pending(
    connection: sqlite3.Connection, hashes: Iterable[bytes]
) -> dict[bytes, np.ndarray]:
    """The vectors that were computed for these hashes and belong to no chunk yet."""
    return _vectors(connection, _PENDING, hashes)


def _vectors(
    connection: sqlite3.Connection, query: str, hashes: Iterable[bytes]
) -> dict[bytes, np.ndarray]:
    found: dict[bytes, np.ndarray] = {}
    for batch in _batches(hashes):
        rows = connection.execute(query % _marks(batch), batch)
        found.update((key, np.frombuffer(data, dtype="<f4")) for key, data in rows)
    return found


def delete_document(connection: sqlite3.Connection, source: str) -> bool:
    """Delete a document and its chunks; false if there is none."""
    row = connection.execute("SELECT id FROM documents WHERE source = ?", (source,)).fetchone()
    if row is None:
        return False
    _forget_terms(
        connection,
        connection.execute("SELECT id, terms FROM chunks WHERE document_id = ?", row).fetchall(),
    )
    connection.execute("DELETE FROM documents WHERE id = ?", row)
    return True


def delete_chunks(connection: sqlite3.Connection, keys: Iterable[str]) -> int:
    """Delete chunks by key, and documents that thereby lose their last one and hold no others."""
    num_deleted = 0
    for batch in _batches(keys):
        marks = _marks(batch)
        found = connection.execute(
            f"SELECT id, terms, document_id FROM chunks WHERE key IN ({marks})", batch
        ).fetchall()
        _forget_terms(connection, [row[:2] for row in found])
        connection.execute(f"DELETE FROM chunks WHERE key IN ({marks})", batch)
        for document_id in {row[2] for row in found}:
            connection.execute(
                "DELETE FROM documents WHERE id = ? AND NOT EXISTS "
                "(SELECT 1 FROM chunks WHERE document_id = documents.id) AND NOT EXISTS "
                "(SELECT 1 FROM documents AS member WHERE member.container = documents.source)",
                (document_id,),
            )
        num_deleted += len(found)
    return num_deleted


def delete_everything(connection: sqlite3.Connection) -> None:
    """Empty the knowledge base."""
    connection.execute("DELETE FROM documents")
    connection.execute("INSERT INTO chunk_terms (chunk_terms) VALUES ('delete-all')")


def read_chunks(
    connection: sqlite3.Connection,
    column: Literal["c.id", "c.key", "d.source"],
    values: Iterable[int | str],
) -> list[StoredChunk]:
    """Chunks whose column has one of the values, in the order of the documents."""
    found: list[StoredChunk] = []
    for batch in _batches(values):
        rows = connection.execute(
            "SELECT c.id, c.key, c.text, d.source, d.title, c.page, c.headings, c.start_offset, "
            "c.end_offset, c.chunk_index, c.content_hash, c.language, c.extra, c.num_terms, "
            "c.terms, c.table_header, c.section_start, c.section_end, d.container "
            "FROM chunks AS c JOIN documents AS d ON d.id = c.document_id "
            f"WHERE {column} IN ({_marks(batch)}) ORDER BY c.document_id, c.chunk_index",
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


def insert_failure(connection: sqlite3.Connection, failure: IngestFailure) -> None:
    """Keep why a source could not be ingested, in place of what was kept before."""
    values = (failure.source, failure.stage, storable(failure.error), failure.permanent)
    connection.execute(
        "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)",
        (*values, time.time(), failure.fingerprint),
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


def replace_failures(
    connection: sqlite3.Connection, source: str, failures: Iterable[IngestFailure] = ()
) -> None:
    """Forget the failures of a file and its members, and keep others in their place.

    A member's source is the file's, `#` and its path inside; `#` never stands in a file's URI.
    """
    connection.execute(
        "DELETE FROM failures WHERE source = ?1 OR (source > ?1 || '#' AND source < ?1 || '$')",
        (source,),
    )
    for failure in failures:
        insert_failure(connection, failure)


def forget_pending(connection: sqlite3.Connection, hashes: Iterable[bytes]) -> None:
    """Drop pending vectors that are stored now."""
    connection.executemany(
        "DELETE FROM pending_vectors WHERE embedding_hash = ?", ((key,) for key in hashes)
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


def _forget_terms(connection: sqlite3.Connection, rows: Iterable[tuple[int, bytes]]) -> None:
    connection.executemany(
        "INSERT INTO chunk_terms (chunk_terms, rowid, terms) VALUES ('delete', ?, ?)",
        ((row_id, " ".join(unpack(packed))) for row_id, packed in rows),
    )


def pack(found: Sequence[str]) -> bytes:
    """Search terms as they are stored."""
    return zlib.compress(" ".join(found).encode(), level=1)


def unpack(packed: bytes) -> list[str]:
    """The search terms again."""
    joined = zlib.decompress(packed).decode()
    return joined.split(" ") if joined else []


def _batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    everything = list(values)
    return (everything[i : i + _BATCH] for i in range(0, len(everything), _BATCH))


def _marks(batch: Sequence[Any]) -> str:
    return ", ".join("?" * len(batch))
