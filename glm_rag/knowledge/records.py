"""Documents, chunks and failures as rows. Every function works in the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from glm_rag.text import terms
from glm_rag.types import (
    Chunk,
    ExtractedDocument,
    IngestFailure,
    Language,
)

_SURROGATE = re.compile("[\ud800-\udfff]")
# SQLite's own limit on parameters is 32,766 and more.
_BATCH = 10_000


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
    embedding_hash: bytes | None = None,
    extra: str | None = None,
) -> None:
    """Insert one chunk with its vector and its search terms.

    Args:
        embedding_hash: what the vector is found again by; None: never.
        extra: the metadata of a text that was added without a file, as JSON.
    """
    found = search_terms(chunk.headings, chunk.table_header, chunk.text)
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


def search_terms(headings: Sequence[str], table_header: str, text: str) -> list[str]:
    """What a chunk is found by word by."""
    return terms("\n".join((*headings, table_header, text)))


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
    for batch in batches(hashes):
        rows = connection.execute(query % marks(batch), batch)
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
    for batch in batches(keys):
        wanted = marks(batch)
        found = connection.execute(
            f"SELECT id, terms, document_id FROM chunks WHERE key IN ({wanted})", batch
        ).fetchall()
        _forget_terms(connection, [row[:2] for row in found])
        connection.execute(f"DELETE FROM chunks WHERE key IN ({wanted})", batch)
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


def insert_failure(connection: sqlite3.Connection, failure: IngestFailure) -> None:
    """Keep why a source could not be ingested, in place of what was kept before."""
    values = (failure.source, failure.stage, storable(failure.error), failure.permanent)
    connection.execute(
        "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)",
        (*values, time.time(), failure.fingerprint),
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


def batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    """As many values as one statement may have parameters."""
    everything = list(values)
    return (everything[i : i + _BATCH] for i in range(0, len(everything), _BATCH))


def marks(batch: Sequence[Any]) -> str:
    """A question mark for each value."""
    return ", ".join("?" * len(batch))
