"""Word documents (.docx): headings as `#` lines, tables as Markdown rows."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from glm_rag.errors import MissingDependencyError
from glm_rag_ingest.loaders.base import Extracted, clean_text, failure
from glm_rag_ingest.loaders.tables import markdown_rows

if TYPE_CHECKING:
    from docx.document import Document

VERSION = "docx/1"
MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

_OLE_MAGIC = bytes.fromhex("d0cf11e0a1b11ae1")
_ENCRYPTED_STREAM = "EncryptedPackage".encode("utf-16-le")
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_MATH_TEXT = "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"
# Properties, deleted text, and the second copy of text boxes for old versions of Word.
_SKIPPED = {f"{_W}{name}" for name in ("pPr", "rPr", "tcPr", "del", "moveFrom")} | {_FALLBACK}
_INLINE = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
# Wrappers whose contents belong to the text around them.
_TRANSPARENT = {f"{_W}{name}" for name in ("sdt", "sdtContent", "customXml", "ins", "moveTo")}
_MOST_COLUMNS = 100
_MOST_LEVEL = 6
_CONTENTS = "contents"  # the mark of lines in a table of contents, which are left out


def extract(data: bytes) -> Extracted:
    """Read paragraphs, lists and tables in order, content controls and text boxes included.

    Cells merged across columns come once, followed by empty ones; cells merged down are empty
    below the first. Headers, footers, footnotes, comments and tables of contents are left out.
    """
    if data.startswith(_OLE_MAGIC):
        raise _not_a_zip(data)
    try:
        import docx
    except ImportError as error:
        raise MissingDependencyError.for_extra("python-docx", "documents") from error
    if not data.startswith(b"PK"):
        raise failure("corrupt", "not a Word document: it does not begin as a .docx file does")
    document = docx.Document(io.BytesIO(data))
    marks = _style_marks(document)
    lines = list(_blocks(document.element.body, marks))
    return Extracted(clean_text(_join(lines)), (document.core_properties.title or "").strip())


def _not_a_zip(data: bytes) -> Exception:
    if _ENCRYPTED_STREAM in data:
        return failure("encrypted", "the document needs a password; save it without one")
    return failure("corrupt", "an old Word (.doc) file under a .docx name; save it as .docx")


def _style_marks(document: Document) -> dict[str, str]:
    """Style id -> what begins its paragraphs: `#` for headings, `-` for lists, or `_CONTENTS`.

    A heading is known by its outline level, own or inherited, which no translation changes.
    """
    styles = {s.get(f"{_W}styleId", ""): s for s in document.styles.element.iter(f"{_W}style")}
    marks: dict[str, str] = {}
    for style_id, style in styles.items():
        chain = _style_chain(style, styles)
        names = [_style_name(s) for s in chain]
        outline = next((o for s in chain for o in s.iter(f"{_W}outlineLvl")), None)
        if any(re.match(r"toc (?:\d|heading)", name) for name in names):
            marks[style_id] = _CONTENTS
        elif outline is not None:
            marks[style_id] = _heading_mark(outline)
        elif "title" in names:
            marks[style_id] = "# "
        elif any(True for s in chain for _ in s.iter(f"{_W}numPr")):
            marks[style_id] = "- "
    return marks


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


def _blocks(parent: Any, marks: dict[str, str]) -> Iterator[str]:
    for child in parent:
        if child.tag == f"{_W}p":
            yield _paragraph(child, marks)
        elif child.tag == f"{_W}tbl":
            yield markdown_rows(list(_rows(child)), has_header=True)
        elif child.tag in _TRANSPARENT:
            yield from _blocks(child, marks)


def _paragraph(paragraph: Any, marks: dict[str, str]) -> str:
    text = _text(paragraph).strip()
    properties = paragraph.find(f"{_W}pPr")
    if properties is None or not text:
        return text
    style = properties.find(f"{_W}pStyle")
    mark = marks.get(style.get(f"{_W}val"), "") if style is not None else ""
    own = properties.find(f"{_W}outlineLvl")
    if own is not None:
        mark = _heading_mark(own)
    if mark == _CONTENTS:
        return ""
    if mark.startswith("#"):
        text = " ".join(text.split())
    elif properties.find(f"{_W}numPr") is not None:
        mark = "- "
    return mark + text


def _text(element: Any) -> str:
    """Text below `element`, paragraphs ended by line feeds."""
    parts: list[str] = []
    for child in element:
        if child.tag in (f"{_W}t", _MATH_TEXT):
            parts.append(child.text or "")
        elif child.tag in _INLINE:
            parts.append(_INLINE[child.tag])
        elif child.tag == f"{_W}p":
            parts.append(_text(child) + "\n")
        elif child.tag not in _SKIPPED and isinstance(child.tag, str):
            parts.append(_text(child))
    return "".join(parts)


def _rows(table: Any) -> Iterator[list[str]]:
    for row in _transparent(table, f"{_W}tr"):
        cells: list[str] = []
        for cell in _transparent(row, f"{_W}tc"):
            cells.append(_text(cell))
            span = cell.find(f"{_W}tcPr/{_W}gridSpan")
            width = int(span.get(f"{_W}val", "1")) if span is not None else 1
            cells.extend([""] * (min(width, _MOST_COLUMNS) - 1))
        yield cells


def _transparent(parent: Any, tag: str) -> Iterator[Any]:
    for child in parent:
        if child.tag == tag:
            yield child
        elif child.tag in _TRANSPARENT:
            yield from _transparent(child, tag)


def _join(blocks: list[str]) -> str:
    """A blank line between blocks, none between the items of a list."""
    blocks = [block for block in blocks if block.strip()]
    parts: list[str] = []
    for before, block in zip(["", *blocks], blocks, strict=False):
        parts += ["\n" if before.startswith("- ") and block.startswith("- ") else "\n\n", block]
    return "".join(parts)
