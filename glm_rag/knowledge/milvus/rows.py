"""Documents and their texts as rows of Milvus, and back. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from glm_rag.knowledge import records
from glm_rag.knowledge.milvus.chunk_rows import chunk_rows
from glm_rag.knowledge.milvus.client import MOST_BYTES, Row
from glm_rag.knowledge.milvus.tables import hashed, row_of
from glm_rag.knowledge.portable import NewDocument
from glm_rag.types import DocumentInfo, PageSpan

# A character has at most four bytes.
_PART = MOST_BYTES // 4
_MOST_WARNINGS = 50_000

DOC_FIELDS = (
    "pk", "kind", "key", "up", "root", "version", "doc", "sha256", "language", "source", "body",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DocRow:
    """A stored version of a document.

    Attributes:
        doc: id of this version. root: hash of the source of the file it was put with, which is
            exchanged as a whole. version: of that file.
        num_terms: of all its chunks. parts: rows of its text. pages: rows of its pages.
    """

    doc: str
    root: str
    version: str
    info: DocumentInfo
    num_terms: int
    parts: int
    pages: int

    @property
    def order(self) -> str:
        """Sorts as documents were stored."""
        return self.doc

    def row(self) -> Row:
        """As it is stored."""
        info = self.info
        own = ("title", "size", "mtime", "media_type", "parser_version", "num_chunks",
               "num_characters", "added_at", "container")  # fmt: skip
        body = {name: getattr(info, name) for name in own} | {
            "warnings": _fitting(info.warnings),
            "num_terms": self.num_terms,
            "parts": self.parts,
            "pages": self.pages,
        }
        return row_of(
            f"doc:{self.doc}",
            "doc",
            json.dumps(body, ensure_ascii=False),
            key=hashed(info.source),
            up=hashed(info.container) if info.container else "",
            root=self.root,
            version=self.version,
            doc=self.doc,
            sha256=info.sha256,
            language=info.language,
            source=info.source,
        )


def doc_of(row: Row) -> DocRow:
    """A row of a document again; its copies are not known here."""
    known = json.loads(row["body"])
    own = {name: known.pop(name) for name in ("num_terms", "parts", "pages")}
    known["warnings"] = tuple(known["warnings"])
    info = DocumentInfo(
        source=row["source"], sha256=row["sha256"], language=row["language"], **known
    )
    return DocRow(row["doc"], row["root"], row["version"], info, **own)


def _fitting(warnings: Sequence[str]) -> list[str]:
    """As many as fit into a row: a file may have one for each of thousands of pages."""
    kept: list[str] = []
    size = 0
    for number, warning in enumerate(warnings):
        size += len(warning.encode()) + 8
        if size > _MOST_WARNINGS:
            return [*kept, f"and {len(warnings) - number} more warnings"]
        kept.append(warning)
    return kept


# ---------------------------------------------------------------- texts


def text_rows(doc: str, root: str, version: str, kind: str, text: str) -> list[Row]:
    """A long text as rows that Milvus takes."""
    parts = [text[i : i + _PART] for i in range(0, len(text), _PART)]
    return [
        row_of(part_key(doc, kind, number), kind, part, doc=doc, root=root, version=version)
        for number, part in enumerate(parts)
    ]


def part_key(doc: str, kind: str, number: int) -> str:
    """Primary key of a part."""
    return f"{kind}:{doc}:{number:06d}"


def pages_text(pages: Sequence[PageSpan]) -> str:
    """Pages as a text; none is an empty one."""
    return json.dumps([[p.number, p.start, p.end] for p in pages]) if pages else ""


def pages_of(text: str) -> tuple[PageSpan, ...]:
    """Pages of a text again."""
    return tuple(PageSpan(*page) for page in json.loads(text)) if text else ()


# ---------------------------------------------------------------- a whole document


@dataclass(frozen=True, slots=True)
class DocumentRows:
    """All rows of a document."""

    doc: DocRow
    texts: list[Row]
    chunks: list[Row]


def document_rows(new: NewDocument, root: str, version: str, number: int) -> DocumentRows:
    """A document as rows; `number` is its place in its file."""
    document, doc = new.document, f"{version}-{number:06d}"
    chunks = list(chunk_rows(new, root, version, doc))
    texts = text_rows(doc, root, version, "text", document.text)
    pages = text_rows(doc, root, version, "pages", pages_text(document.pages))
    info = DocumentInfo(
        source=document.source,
        title=records.storable(document.title),
        sha256=document.sha256,
        size=document.size,
        mtime=document.mtime,
        media_type=document.media_type,
        parser_version=document.parser_version,
        language=new.language,
        num_chunks=len(chunks),
        num_characters=len(document.text),
        added_at=new.added_at,
        warnings=tuple(records.storable(warning) for warning in document.warnings),
        container=document.container,
    )
    num_terms = sum(row["num_terms"] for row in chunks)
    row = DocRow(doc, root, version, info, num_terms, len(texts), len(pages))
    return DocumentRows(row, [*texts, *pages], chunks)
