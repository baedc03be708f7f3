"""OpenDocument text (.odt), read from its XML: headings, lists, tables, footnotes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

from glm_rag.errors import MissingDependencyError
from glm_rag_ingest.loaders.base import Extracted, clean_text, failure
from glm_rag_ingest.loaders.office import check_archive
from glm_rag_ingest.loaders.tables import markdown_rows

VERSION = "odt/1"
MEDIA_TYPE = "application/vnd.oasis.opendocument.text"
SUFFIXES = (".odt", ".ott")

_NS = "{urn:oasis:names:tc:opendocument:xmlns:"
_OFFICE, _TEXT, _TABLE, _DRAW = (
    f"{_NS}{name}:1.0}}" for name in ("office", "text", "table", "drawing")
)
_DC_TITLE = "{http://purl.org/dc/elements/1.1/}title"
# Deleted text, comments, contents and indexes, and the marks of footnotes.
_SKIPPED = {
    *(f"{_TEXT}{name}" for name in ("tracked-changes", "table-of-content", "note-citation")),
    *(f"{_TEXT}{name}" for name in ("alphabetical-index", "sequence-decls")),
    f"{_OFFICE}annotation",
}
_SPACE, _TAB, _BREAK = f"{_TEXT}s", f"{_TEXT}tab", f"{_TEXT}line-break"
_MOST_SPACES = 100
_MOST_REPEATED = 100
_MOST_LEVEL = 6


def extract(data: bytes) -> Extracted:
    """Paragraphs, lists and tables in order; footnotes follow the paragraph that has them."""
    try:
        from lxml import etree
    except ImportError as error:
        raise MissingDependencyError.for_extra("lxml", "documents") from error
    check_archive(data, ".odt")
    # Entities stay what they are, so that none can grow; lxml itself refuses depth above 256.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        if "content.xml" not in names:
            raise failure("corrupt", "no OpenDocument text: content.xml is missing")
        content = etree.fromstring(archive.read("content.xml"), parser)
        meta = etree.fromstring(archive.read("meta.xml"), parser) if "meta.xml" in names else None
    body = content.find(f"{_OFFICE}body/{_OFFICE}text")
    if body is None:
        raise failure("corrupt", "no OpenDocument text; is it a spreadsheet or a presentation?")
    title = next((e.text or "" for e in meta.iter(_DC_TITLE)), "") if meta is not None else ""
    blocks = [block for block in _blocks(body) if block.strip()]
    return Extracted(clean_text("\n\n".join(blocks)), title.strip())


def _blocks(parent: Any) -> Iterator[str]:
    for child in parent:
        tag = child.tag
        if tag == f"{_TEXT}h":
            level = child.get(f"{_TEXT}outline-level", "1")
            mark = "#" * min(int(level) if level.isdecimal() else 1, _MOST_LEVEL)
            line = " ".join(_inline(child).split())
            yield f"{mark} {line}" if line else ""
            yield from _notes(child)
        elif tag == f"{_TEXT}p":
            yield _inline(child)
            yield from _notes(child)
        elif tag == f"{_TEXT}list":
            yield "\n".join(_items(child, 0))
        elif tag == f"{_TABLE}table":
            yield markdown_rows(list(_rows(child)), has_header=True)
        elif tag not in _SKIPPED:
            yield from _blocks(child)


def _items(parent: Any, level: int) -> Iterator[str]:
    for item in parent:
        first = True
        for child in item:
            if child.tag == f"{_TEXT}list":
                yield from _items(child, level + 1)
                continue
            text = _inline(child).strip()
            if text:
                yield f"{'  ' * level}{'- ' if first else '  '}{text}"
                first = False


def _inline(element: Any) -> str:
    """Text below `element`; paragraphs inside it, as in text boxes, end with line feeds."""
    parts = [element.text or ""]
    for child in element:
        if child.tag == _SPACE:
            count = child.get(f"{_TEXT}c", "1")
            parts.append(" " * min(int(count) if count.isdecimal() else 1, _MOST_SPACES))
        elif child.tag in (_TAB, _BREAK):
            parts.append("\t" if child.tag == _TAB else "\n")
        elif child.tag == f"{_TEXT}note":
            parts.append(f"[{_citation(child)}]")
        elif isinstance(child.tag, str) and child.tag not in _SKIPPED:
            parts.append(_inline(child))
            parts.append("\n" if child.tag in (f"{_TEXT}p", f"{_TEXT}h") else "")
        parts.append(child.tail or "")
    return "".join(parts)


def _notes(paragraph: Any) -> Iterator[str]:
    for note in paragraph.iter(f"{_TEXT}note"):
        body = note.find(f"{_TEXT}note-body")
        if body is not None:
            yield f"[{_citation(note)}] {' '.join(_inline(body).split())}"


def _citation(note: Any) -> str:
    mark = note.find(f"{_TEXT}note-citation")
    return (mark.text or "") if mark is not None else ""


def _rows(table: Any) -> Iterator[list[str]]:
    for row in table.iter(f"{_TABLE}table-row"):
        if next(row.iterancestors(f"{_TABLE}table"), None) is not table:
            continue  # of a table inside a cell, which is read with the cell
        cells: list[str] = []
        for cell in row:
            count = cell.get(f"{_TABLE}number-columns-repeated", "1")
            repeated = min(int(count) if count.isdecimal() else 1, _MOST_REPEATED)
            cells += [_inline(cell)] * repeated
        yield cells
