"""Rich Text Format: headings as `#` lines, tables as Markdown rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from glm_rag.errors import MissingDependencyError
from glm_rag_ingest.loaders.base import Extracted, clean_text, failure
from glm_rag_ingest.loaders.encoding import lost_characters
from glm_rag_ingest.loaders.tables import markdown_rows

VERSION = "rtf/1"
MEDIA_TYPE = "application/rtf"

_BINARY = re.compile(rb"\\bin(\d{1,10}) ?")
_HIGH_BYTE = re.compile(rb"[\x80-\xff]")
_PICTURE = re.compile(r"[0-9a-fA-F\r\n]{512,}")  # no prose has such a run
_CODE_PAGE = re.compile(r"\\ansicpg(\d{1,5})")
# First bytes of two-byte characters, in the code pages that have them.
_LEADS = dict.fromkeys(("936", "949", "950"), "[89a-f][0-9a-f]")
_LEADS["932"] = "[89ef][0-9a-f]"
_TITLE = re.compile(r"\{\\title[ \r\n]([^{}]{0,1000})\}")
_HEADING_STYLE = re.compile(r"\{\\s(\d{1,3})(?!\d)[^{}]{0,2000}? heading ([1-6]);\}", re.IGNORECASE)
# Marks of our own, which pass through the converter as characters of the private use area.
_CELL, _ROW_END, _ROW_START, _HEADING = "\ue000", "\ue001", "\ue002", "\ue010"
_WORDS = {"cell": _CELL, "nestcell": _CELL, "row": _ROW_END, "trowd": _ROW_START}
_CONTROL = re.compile(r"\\(nestcell|cell|row|trowd|s\d{1,3})(?![a-z\d])")
_HEADING_LINE = re.compile(r"^[^\S\n]*([\ue010-\ue015])[\ue010-\ue015]*(.*)$", re.MULTILINE)
_MARKS = re.compile(r"[\ue000-\ue002\ue010-\ue015]")


def extract(data: bytes) -> Extracted:
    """Read text, headings and tables; pictures, headers, footers and notes are left out.

    Raises:
        DocumentError: `corrupt` where it is no RTF.
    """
    if not data.lstrip()[:5].lower() == b"{\\rtf":
        raise failure("corrupt", "not an RTF file: it does not begin with {\\rtf")
    source = _with_whole_pairs(_as_ascii(data))
    text = _convert(_with_marks(source), source)
    text = _HEADING_LINE.sub(_heading, "".join(_with_tables(text)))
    text = clean_text(_MARKS.sub("", text))
    title = _TITLE.search(source)
    name = _convert(f"{{\\rtf1 {title.group(1)}}}", source) if title else ""
    return Extracted(text, " ".join(clean_text(name).split()), warnings=lost_characters(text))


def to_text(data: bytes) -> str:
    """The text alone, for messages whose body is RTF."""
    return extract(data).text


def _as_ascii(data: bytes) -> str:
    """Without embedded binary data; bytes beyond ASCII as the escapes they ought to be."""
    parts, position = [], 0
    while binary := _BINARY.search(data, position):
        parts.append(data[position : binary.start()])
        position = binary.end() + int(binary.group(1))
    plain = b"".join([*parts, data[position:]])
    escaped = _HIGH_BYTE.sub(lambda match: b"\\'%02x" % match.group()[0], plain)
    return _PICTURE.sub("", escaped.decode("ascii"))


def _with_whole_pairs(source: str) -> str:
    """Escape second bytes too where Word wrote them as the letters they look like."""
    stated = _CODE_PAGE.search(source)
    leads = _LEADS.get(stated.group(1)) if stated else None
    if leads is None:
        return source

    def escape(match: re.Match[str]) -> str:
        return f"\\'{match.group(1)}\\'{match.group(2) or f'{ord(match.group(3)):02x}'}"

    pair = rf"\\'({leads})(?:\\'([0-9a-f]{{2}})|([@-Z\[\]-z|~]))"
    return re.sub(pair, escape, source, flags=re.IGNORECASE)


def _with_marks(source: str) -> str:
    headings = {f"s{style}": int(level) for style, level in _HEADING_STYLE.findall(source)}

    def mark(match: re.Match[str]) -> str:
        word = match.group(1)
        if word in headings:
            char = chr(ord(_HEADING) + headings[word] - 1)
        elif word in _WORDS:
            char = _WORDS[word]
        else:
            return match.group()
        return f"{{\\uc0\\u{ord(char)} }}"

    return _CONTROL.sub(mark, source)


def _convert(rtf: str, source: str) -> str:
    try:
        from striprtf.striprtf import rtf_to_text
    except ImportError as error:
        raise MissingDependencyError.for_extra("striprtf", "documents") from error
    stated = _CODE_PAGE.search(source)
    encoding = f"cp{stated.group(1)}" if stated else "cp1252"
    # Character set 0 means that of the document, which the converter takes for Western always;
    # its search for links can take time cubed, and their addresses are not read anyway.
    rtf = rtf.replace("\\fcharset0", "\\fcharset1").replace("\\field{", "\\field {")
    convert: Callable[..., str] = rtf_to_text
    try:
        text = convert(rtf, encoding=encoding, errors="replace")
    except LookupError:
        text = convert(_CODE_PAGE.sub("", rtf), encoding="cp1252", errors="replace")
    # \u writes characters beyond the first plane as two surrogates.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _with_tables(text: str) -> Iterator[str]:
    """Rows that follow each other as one Markdown table, and the text between."""
    *pieces, last = text.split(_ROW_END)
    rows: list[list[str]] = []
    for piece in pieces:
        before, _, row = piece.partition(_ROW_START)
        if before.strip():
            yield from (_table(rows), before)
            rows = []
        rows.append([_MARKS.sub("", cell) for cell in row.split(_CELL)])
    yield from (_table(rows), last)


def _table(rows: list[list[str]]) -> str:
    return f"\n\n{markdown_rows(rows, has_header=True)}\n\n" if rows else ""


def _heading(match: re.Match[str]) -> str:
    line = " ".join(_MARKS.sub("", match.group(2)).split())
    level = ord(match.group(1)) - ord(_HEADING) + 1
    return f"\n{'#' * level} {line}\n" if line else ""
