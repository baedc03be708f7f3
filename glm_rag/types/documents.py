"""Values of documents: their text, pages and chunks. All offsets refer to the extracted text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class PageSpan:
    """Characters `[start, end)` of the extracted text that stand on page `number` (from 1)."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ExtractedDocument:
    """One source turned into text. All offsets elsewhere refer to `text`.

    Attributes:
        source: URI of the file (`Path.as_uri()`) or any stable identifier.
        title: the document's own title, else its file name.
        text: extracted text, line ends as `\n`.
        sha256: hex digest of the source's bytes.
        size: bytes. mtime: seconds since the epoch, 0 where there is no file.
        pages: spans in order; empty for formats without pages.
        warnings: what was lost while reading (a page without text, say).
        container: source of the archive or mail that holds it; empty for a file of its own.
    """

    source: str
    title: str
    text: str
    sha256: str
    size: int
    mtime: float
    media_type: str
    parser_version: str
    pages: tuple[PageSpan, ...] = ()
    warnings: tuple[str, ...] = ()
    container: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an extracted document; `text == document.text[start:end]` always holds.

    Attributes:
        headings: path of headings above the chunk; put before the text for embedding.
        table_header: the header rows of the table in whose middle the chunk begins; put before
            the text for embedding and for the model, never part of `text`.
        section: characters `[start, end)` of the document that form the section around it.
    """

    start: int
    end: int
    text: str
    page: int | None = None
    headings: tuple[str, ...] = ()
    table_header: str = ""
    section: tuple[int, int] | None = None

    @property
    def embedding_text(self) -> str:
        """What is embedded and counted against the token limit: headings, header, text."""
        path = " > ".join(self.headings)
        return "\n".join(part for part in (path, self.table_header, self.text) if part)

    @property
    def content_hash(self) -> str:
        """SHA-256 of the chunk's text, hex."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    def id_for(self, source: str) -> str:
        """Deterministic chunk id: the same source, start and content give the same id."""
        return chunk_id(source, self.start, self.content_hash)


def chunk_id(source: str, start: int, content_hash: str) -> str:
    """The id of the chunk of `source` that begins at `start` and has this content."""
    key = f"{source}\0{start}\0{content_hash}"
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """What a knowledge base keeps about one document.

    `copies` are the sources of other files with the same bytes; `container` is the archive or mail
    that holds it.
    """

    source: str
    title: str
    sha256: str
    size: int
    mtime: float
    media_type: str
    parser_version: str
    language: Language
    num_chunks: int
    num_characters: int
    added_at: float
    warnings: tuple[str, ...] = ()
    container: str = ""
    copies: tuple[str, ...] = ()
