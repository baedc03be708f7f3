"""A document with its chunks and vectors, checked and put in the place of its older version."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import records, sources
from glm_rag.text import chunk_language, detect_language
from glm_rag.types import Chunk, ExtractedDocument

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document ready to be stored: its chunks, their vectors and embedding hashes."""

    document: ExtractedDocument
    chunks: Sequence[Chunk]
    vectors: np.ndarray
    hashes: Sequence[bytes]


def put(connection: sqlite3.Connection, item: Prepared) -> None:
    """Put a document in the place of its older version; its members are not its business."""
    document = item.document
    copies = sources.make_room(connection, document.source, document.sha256)
    keys = [chunk.id_for(document.source) for chunk in item.chunks]
    # Somebody may have overwritten one of the chunks by its id.
    records.delete_chunks(connection, keys)
    language = detect_language(document.text)
    document_id = records.insert_document(connection, document, language)
    sources.restore_copies(connection, document_id, copies)
    rows = zip(keys, item.chunks, item.vectors, item.hashes, strict=True)
    for number, (key, chunk, vector, embedded) in enumerate(rows):
        in_chunk = chunk_language(chunk.text, language)
        records.insert_chunk(
            connection, document_id, number, key, chunk, in_chunk, vector, embedded
        )


def check_chunks(document: ExtractedDocument, chunks: Sequence[Chunk]) -> None:
    """Refuse chunks that are not what their offsets say.

    Raises:
        KnowledgeBaseError: a chunk's text stands elsewhere, or a chunk is there twice.
    """
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


def storable_chunk(chunk: Chunk) -> Chunk:
    """The chunk without lone surrogates."""
    return replace(
        chunk,
        text=records.storable(chunk.text),
        headings=tuple(records.storable(heading) for heading in chunk.headings),
        table_header=records.storable(chunk.table_header),
    )
