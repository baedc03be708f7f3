"""HTML to text: headings as `#` lines, lists as `-` lines, tables as Markdown rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from glm_rag.errors import MissingDependencyError
from glm_rag_ingest.loaders.base import Extracted, clean_text, failure
from glm_rag_ingest.loaders.encoding import decode, lost_characters
from glm_rag_ingest.loaders.tables import markdown_rows

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

VERSION = "html/2"
MEDIA_TYPE = "text/html"

_HEAD_BYTES = 4096
_CHARSET = re.compile(
    rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w.:-]+)|<\?xml[^>]+encoding\s*=\s*[\"']([\w.:-]+)",
    re.IGNORECASE,
)
_XHTML = "http://www.w3.org/1999/xhtml"
# In HTML these stay open without an end tag, and some swallow the rest of the page.
_SELF_CLOSED = re.compile(
    r"<(title|script|style|textarea|iframe|noscript|object|canvas|a|div|p|span|td|li|i|b|em|h[1-6])"
    r"((?:\s[^<>]*)?)/>",
    re.IGNORECASE,
)
_MOST_LEVELS = 10_000  # half a second; browsers cut pages off at 512
_TAG = re.compile(
    r"<(/)?(?!(?:p|li|dt|dd|tr|td|th|tbody|thead|tfoot|option|br|img|hr|input|meta|link|col|"
    r"area|base|embed|source|track|wbr|param|rp|rt)\b)[a-z][^<>]*+(?<!/)>",
    re.IGNORECASE,
)
_DROPPED = frozenset(
    "head script style noscript template nav svg iframe object embed canvas audio video button "
    "select textarea datalist dialog".split()
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption "
    "figure footer form header hr html legend li main menu ol p pre section summary table tbody "
    "td tfoot th thead tr ul".split()
).union(_HEADINGS)
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_WIDE = r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]"
_BREAK_IN_CJK = re.compile(rf"(?<={_WIDE})[ \t]*\n\s*(?={_WIDE})")
_SPACES = re.compile(r"[ \t\n\xa0]+")
_MOST_COLUMNS = 100


def extract(data: bytes, charset: str | None = None) -> Extracted:
    """Read a page as a browser would show it, without scripts, navigation and hidden parts.

    The encoding is that of a byte order mark, `charset` as stated around the page, the page's
    own declaration, UTF-8, or detection.
    """
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as error:
        raise MissingDependencyError.for_extra("selectolax", "documents") from error
    page = decode(data, charset or declared_charset(data))
    if _XHTML in page[:_HEAD_BYTES]:
        page = _SELF_CLOSED.sub(r"<\1\2></\1>", page)
    if _is_too_deep(page):
        raise failure("unsupported", f"elements nested more than {_MOST_LEVELS:,} deep; a bomb")
    tree = LexborHTMLParser(page)
    writer = _Writer()
    if tree.body is not None:
        _write(tree.body, writer)
    title = tree.css_first("title") or tree.css_first("h1")
    name = _SPACES.sub(" ", title.text()).strip() if title is not None else ""
    text = clean_text(writer.text())
    return Extracted(text, name, warnings=lost_characters(text))


def declared_charset(data: bytes) -> str | None:
    """The charset that a `<meta>` or `<?xml` at the beginning of the page states."""
    match = _CHARSET.search(data[:_HEAD_BYTES])
    label = (match.group(1) or match.group(2)) if match else None
    return label.decode("ascii", "replace") if label else None


def _is_too_deep(page: str) -> bool:
    """Whether the page nests far deeper than people do; the parser takes time squared for it.

    Counts the tags that open and close; elements that the next of their kind ends do not nest.
    """
    if page.count("<") < _MOST_LEVELS:
        return False
    depth = 0
    for tag in _TAG.finditer(page):
        depth = max(0, depth - 1) if tag.group(1) else depth + 1
        if depth > _MOST_LEVELS:
            return True
    return False


class _Writer:
    """Collects inline text into paragraphs, and paragraphs into the page."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._inline: list[str] = []
        self._prefix = ""
        self.in_pre = 0

    def add(self, text: str) -> None:
        if not self.in_pre:
            text = _SPACES.sub(" ", _BREAK_IN_CJK.sub("", text))
        self._inline.append(text)

    def line_break(self) -> None:
        self._inline.append("\n")

    def end_block(self, prefix: str = "") -> None:
        """Close the open paragraph; `prefix` begins the next one."""
        lines = "".join(self._inline).split("\n")
        if not self.in_pre:
            lines = [_SPACES.sub(" ", line).strip() for line in lines]
        paragraph = "\n".join(lines).strip("\n")
        self._inline.clear()
        if paragraph.strip():
            if self._prefix.startswith("#"):
                paragraph = " ".join(paragraph.split())
            self._blocks.append(self._prefix + paragraph)
            self._prefix = ""
        self._prefix = prefix or self._prefix

    def end_heading(self) -> None:
        self.end_block()
        self._prefix = ""

    def add_block(self, text: str) -> None:
        self.end_block()
        self._blocks.append(text)

    def text(self) -> str:
        self.end_block()
        parts: list[str] = []
        for before, block in zip(["", *self._blocks], self._blocks, strict=False):
            close = before.startswith("- ") and block.startswith("- ")
            parts += ["\n" if close else "\n\n", block]
        return "".join(parts)


def _write(root: LexborNode, writer: _Writer) -> None:
    """Walk without recursion: pages nest deeper than Python does."""
    stack: list[tuple[LexborNode, bool]] = [(root, False)]
    while stack:
        node, leaving = stack.pop()
        if leaving:
            _leave(node.tag, writer)
            continue
        if node.is_text_node:
            writer.add(node.text_content or "")
        elif node.tag == "br":
            writer.line_break()
        elif node.tag == "table" and (rows := _data_rows(node)):
            writer.add_block(markdown_rows(rows, has_header=node.css_first("th") is not None))
        elif not _is_dropped(node):
            _enter(node.tag, writer)
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(_children(node)))


def _enter(tag: str | None, writer: _Writer) -> None:
    if tag in _HEADINGS:
        writer.end_block("#" * _HEADINGS[tag] + " ")
    elif tag == "li":
        writer.end_block("- ")
    elif tag in _BLOCKS:
        writer.end_block()
    if tag == "pre":
        writer.in_pre += 1


def _leave(tag: str | None, writer: _Writer) -> None:
    if tag in _HEADINGS or tag == "li":
        writer.end_heading()
    elif tag in _BLOCKS:
        writer.end_block()
    if tag == "pre":
        writer.in_pre -= 1


def _children(node: LexborNode) -> list[LexborNode]:
    found = []
    child = node.child
    while child is not None:
        if child.is_text_node or child.is_element_node:
            found.append(child)
        child = child.next
    return found


def _is_dropped(node: LexborNode) -> bool:
    if node.tag in _DROPPED:
        return True
    attributes = node.attributes
    return "hidden" in attributes or bool(_HIDDEN.search(attributes.get("style") or ""))


def _data_rows(table: LexborNode) -> list[list[str]]:
    """Cells by row; nothing for a table that only lays out the page.

    Such a table holds other tables or headings, or never puts two cells side by side.
    """
    if table.css_first("table table, h1, h2, h3, h4, h5, h6") is not None:
        return []
    rows: list[list[str]] = []
    for row in table.css("tr"):
        cells: list[str] = []
        for cell in row.css("td, th"):
            writer = _Writer()
            _write(cell, writer)
            cells.append(" ".join(writer.text().split()))
            cells.extend([""] * (_span(cell) - 1))
        rows.append(cells)
    side_by_side = any(sum(bool(cell) for cell in row) > 1 for row in rows)
    return rows if side_by_side else []


def _span(cell: LexborNode) -> int:
    stated = (cell.attributes.get("colspan") or "1").strip()
    return max(1, min(_MOST_COLUMNS, int(stated))) if stated.isdecimal() else 1
