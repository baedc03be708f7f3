"""Word documents (.docx): headings as `#` lines, lists with their numbers, tables, footnotes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glm_rag.errors import MissingDependencyError
from glm_rag_ingest.loaders.base import Extracted, clean_text
from glm_rag_ingest.loaders.docx_numbering import Numbering
from glm_rag_ingest.loaders.office import check_archive
from glm_rag_ingest.loaders.tables import markdown_rows

if TYPE_CHECKING:
    from docx.document import Document

VERSION = "docx/2"
MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
SUFFIXES = (".docx",)

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_MATH_TEXT = "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"
# Properties, deleted text, and the second copy of text boxes for old versions of Word.
_SKIPPED = {f"{_W}{name}" for name in ("pPr", "rPr", "tcPr", "del", "moveFrom")} | {_FALLBACK}
_INLINE = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
# Wrappers whose contents belong to the text around them.
_TRANSPARENT = {f"{_W}{name}" for name in ("sdt", "sdtContent", "customXml", "ins", "moveTo")}
# References to notes, and the end of the type of the relationship that leads to their part.
_NOTES = {f"{_W}footnoteReference": "/footnotes", f"{_W}endnoteReference": "/endnotes"}
_NUMBERING = "/numbering"
_MOST_COLUMNS = 100
_MOST_LEVEL = 6
_MOST_LIST_LEVEL = 8  # Word has nine, counted from 0
_CONTENTS = "contents"  # the mark of lines in a table of contents, which are left out


@dataclass(frozen=True, slots=True)
class _Style:
    """What a paragraph style says: `#` marks of a heading or `_CONTENTS`, and its list."""

    mark: str = ""
    list_number: str = ""
    list_level: int | None = None


def extract(data: bytes) -> Extracted:
    """Read paragraphs, lists and tables in order, content controls and text boxes included.

    Cells merged across columns come once, followed by empty ones; cells merged down are empty
    below the first. Footnotes and endnotes follow the paragraph that refers to them. Headers,
    footers, comments and tables of contents are left out.
    """
    try:
        import docx
    except ImportError as error:
        raise MissingDependencyError.for_extra("python-docx", "documents") from error
    check_archive(data, ".docx", old_suffix=".doc")
    document = docx.Document(io.BytesIO(data))
    reader = _Reader(document)
    blocks = [block for block in reader.blocks(document.element.body) if block.text.strip()]
    return Extracted(clean_text(_join(blocks)), (document.core_properties.title or "").strip())


def _styles(document: Document) -> dict[str, _Style]:
    """By id. A heading is known by its outline level, which no translation changes; that and the
    list may be inherited.
    """
    styles = {s.get(f"{_W}styleId", ""): s for s in document.styles.element.iter(f"{_W}style")}
    return {style_id: _style(_style_chain(style, styles)) for style_id, style in styles.items()}


def _style(chain: list[Any]) -> _Style:
    names = [_style_name(style) for style in chain]
    if any(re.match(r"toc (?:\d|heading)", name) for name in names):
        return _Style(_CONTENTS)
    outline = next((o for style in chain for o in style.iter(f"{_W}outlineLvl")), None)
    number = next((_val(n) for style in chain for n in style.iter(f"{_W}numId")), "")
    level = next((_val(n) for style in chain for n in style.iter(f"{_W}ilvl")), "")
    title = "# " if "title" in names else ""
    mark = _heading_mark(outline) if outline is not None else title
    return _Style(mark, number, int(level) if level.isdecimal() else None)


def _style_chain(style: Any, styles: dict[str, Any]) -> list[Any]:
    """The style and those it is based on; a loop ends the chain."""
    chain: list[Any] = []
    while style is not None and style not in chain:
        chain.append(style)
        base = style.find(f"{_W}basedOn")
        style = styles.get(base.get(f"{_W}val", "")) if base is not None else None
    return chain


def _heading_mark(outline: Any) -> str:
    """`## ` for outline level 1, and so on; nothing where it is body text."""
    value = outline.get(f"{_W}val", "9")
    is_heading = value.isdecimal() and int(value) < _MOST_LEVEL
    return "#" * (int(value) + 1) + " " if is_heading else ""


def _style_name(style: Any) -> str:
    name = style.find(f"{_W}name")
    return str(name.get(f"{_W}val", "")).lower() if name is not None else ""


def _val(element: Any | None) -> str:
    return str(element.get(f"{_W}val", "")) if element is not None else ""


@dataclass(frozen=True, slots=True)
class _Block:
    text: str
    is_item: bool = False  # of a list


class _Reader:
    """Reads blocks in order, which lists and footnotes need for their numbers."""

    def __init__(self, document: Document) -> None:
        self._styles = _styles(document)
        self._numbering = Numbering(_part(document, _NUMBERING))
        self._notes = {tag: _notes(_part(document, end)) for tag, end in _NOTES.items()}
        self._num_notes = 0
        self._pending: list[str] = []

    def blocks(self, parent: Any) -> Iterator[_Block]:
        """The blocks below `parent`; footnotes come behind the block that refers to them."""
        for child in parent:
            if child.tag == f"{_W}p":
                yield self._paragraph(child)
            elif child.tag == f"{_W}tbl":
                yield _Block(markdown_rows(list(self._rows(child)), has_header=True))
            elif child.tag in _TRANSPARENT:
                yield from self.blocks(child)
            notes, self._pending = self._pending, []
            yield from map(_Block, notes)

    def _paragraph(self, paragraph: Any) -> _Block:
        text = self._text(paragraph).strip()
        properties = paragraph.find(f"{_W}pPr")
        if properties is None or not text:
            return _Block(text)
        style_id = _val(properties.find(f"{_W}pStyle"))
        style = self._styles.get(style_id, _Style())
        own = properties.find(f"{_W}outlineLvl")
        mark = _heading_mark(own) if own is not None else style.mark
        if mark == _CONTENTS:
            return _Block("")
        label, level = self._label(properties, style, style_id)
        if mark:
            return _Block(mark + " ".join(f"{label if label != '-' else ''} {text}".split()))
        if not label:
            return _Block(text)
        return _Block(f"{'  ' * level}{label} {text}", is_item=True)

    def _label(self, properties: Any, style: _Style, style_id: str) -> tuple[str, int]:
        """What the list of a paragraph puts before it, and its level; the own list goes first."""
        own = properties.find(f"{_W}numPr")
        number = _val(own.find(f"{_W}numId")) if own is not None else ""
        level = _val(own.find(f"{_W}ilvl")) if own is not None else ""
        number = number or style.list_number
        if level.isdecimal():
            depth = int(level)
        elif style.list_level is not None:
            depth = style.list_level
        else:
            depth = self._numbering.level_of_style(number, style_id)
        depth = min(depth, _MOST_LIST_LEVEL)
        return self._numbering.label(number, depth) or "", depth

    def _text(self, element: Any) -> str:
        """Text below `element`, paragraphs ended by line feeds."""
        parts: list[str] = []
        for child in element:
            if child.tag in (f"{_W}t", _MATH_TEXT):
                parts.append(child.text or "")
            elif child.tag in _INLINE:
                parts.append(_INLINE[child.tag])
            elif child.tag in _NOTES:
                parts.append(self._reference(child))
            elif child.tag == f"{_W}p":
                parts.append(self._text(child) + "\n")
            elif child.tag not in _SKIPPED and isinstance(child.tag, str):
                parts.append(self._text(child))
        return "".join(parts)

    def _reference(self, element: Any) -> str:
        note = self._notes[element.tag].get(element.get(f"{_W}id", ""))
        text = " ".join(self._text(note).split()) if note is not None else ""
        if not text:
            return ""
        self._num_notes += 1
        self._pending.append(f"[{self._num_notes}] {text}")
        return f"[{self._num_notes}]"

    def _rows(self, table: Any) -> Iterator[list[str]]:
        for row in _transparent(table, f"{_W}tr"):
            cells: list[str] = []
            for cell in _transparent(row, f"{_W}tc"):
                cells.append(self._text(cell))
                span = _val(cell.find(f"{_W}tcPr/{_W}gridSpan"))
                width = int(span) if span.isdecimal() else 1
                cells.extend([""] * (min(width, _MOST_COLUMNS) - 1))
            yield cells


def _part(document: Document, type_end: str) -> Any | None:
    """The XML of the part that the document relates to in this way, if there is one."""
    from docx.oxml import parse_xml

    for relation in document.part.rels.values():
        if relation.reltype.endswith(type_end) and not relation.is_external:
            return parse_xml(relation.target_part.blob)
    return None


def _notes(part: Any | None) -> dict[str, Any]:
    """Notes by id; the lines that part them from the text have a type and are left out."""
    found = [note for note in part if not note.get(f"{_W}type")] if part is not None else []
    return {note.get(f"{_W}id", ""): note for note in found}


def _transparent(parent: Any, tag: str) -> Iterator[Any]:
    for child in parent:
        if child.tag == tag:
            yield child
        elif child.tag in _TRANSPARENT:
            yield from _transparent(child, tag)


def _join(blocks: list[_Block]) -> str:
    """A blank line between blocks, none between the items of a list."""
    parts: list[str] = []
    for before, block in zip([_Block(""), *blocks], blocks, strict=False):
        parts += ["\n" if before.is_item and block.is_item else "\n\n", block.text]
    return "".join(parts)
