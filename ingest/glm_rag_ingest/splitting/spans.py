"""What of a text stays whole, and how well it may be cut in between. Nothing is counted here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

from glm_rag.text import sentence_spans
from glm_rag.types import ExtractedDocument
from glm_rag_ingest.loaders.base import heading_title
from glm_rag_ingest.splitting.definitions import code_language, definitions
from glm_rag_ingest.splitting.sections import Outline, Section, by_level

Kind = Literal["text", "heading", "row", "code"]

_HEADING = re.compile(r"^(#{1,6})[ \t]+(\S.*)$", re.MULTILINE)
_LONGEST_HEADING = 200  # characters; more is a paragraph that begins with `#`
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([\w+#-]*)(.*)$", re.MULTILINE)
_TABLE = re.compile(r"^\|.*\|[ \t]*(?:\n\|.*\|[ \t]*)*$", re.MULTILINE)
_RULE = re.compile(r"\|(?:[ \t]*:?-+:?[ \t]*\|)+")
_LINE = re.compile(r"\S[^\n]*")
_BLANK_LINE = re.compile(r"\n\s*\n")
_CLOSES = re.compile(r"[)\]}]|end\b")
# A line that introduces what comes below it.
_LEADS_IN = re.compile(r"(?:[:：]|\b(?:as follows|below)[.:]|(?:如下|见下表|如下表)[。：]?)$")
_LONGEST_LEAD_IN = 20  # characters of it that are looked at


class Border(IntEnum):
    """How well a text may be cut before a span, worst first."""

    TOGETHER = 0  # belongs to what stands before: text below a heading, a list below "as follows:"
    INSIDE = 1  # in a sentence, row or line
    SENTENCE = 2
    ITEM = 3  # a list item, row or line
    PARAGRAPH = 4
    HEADING = 5


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `[start, end)` that stay whole where they fit.

    `header` is where the header row stands of the table that the span is a later row of.
    """

    start: int
    end: int
    border: Border
    kind: Kind = "text"
    header: tuple[int, int] | None = None


def divide(document: ExtractedDocument) -> tuple[list[Span], Outline]:
    """Every character of the text that is not white space, in spans, and the text's outline."""
    text, media_type = document.text, document.media_type
    language = code_language(media_type)
    if language is not None:
        sections = definitions(text, 0, len(text), language)
        spans = list(_code(text, 0, len(text), sections, Border.HEADING))
        return spans, Outline(sections, len(text))
    # PDF has no marks of Markdown; plain text may hold some.
    fences = [] if media_type == "application/pdf" else list(_fences(text, media_type))
    headings = [] if media_type == "application/pdf" else list(_headings(text, fences))
    blocks = [("heading", s.start, s.body) for _, s in headings]
    blocks += [("fence", start, end) for start, end, _ in fences]
    blocks += [("row", *m.span()) for m in _outside(_TABLE, text, fences)]
    languages = {start: name for start, _, name in fences}
    spans = []
    position = 0
    for kind, start, end in sorted(blocks, key=lambda block: block[1]):
        spans += _prose(text, position, start)
        if kind == "heading":
            spans.append(Span(start, end, Border.HEADING, "heading"))
        elif kind == "row":
            spans += _rows(text, start, end)
        else:
            spans += _fenced(text, start, end, languages[start])
        position = end
    spans += _prose(text, position, len(text))
    return list(_joined(text, spans)), Outline(by_level(headings, len(text)), len(text))


# ---------------------------------------------------------------- finding blocks


def _headings(text: str, fences: list[tuple[int, int, str]]) -> Iterator[tuple[int, Section]]:
    """Heading lines outside fenced code, with their level."""
    for match in _outside(_HEADING, text, fences):
        title = heading_title(match.group(2))
        if len(title) <= _LONGEST_HEADING:
            yield len(match.group(1)), Section(match.start(), match.end(), match.end(), title)


def _fences(text: str, media_type: str) -> Iterator[tuple[int, int, str]]:
    """Fenced code with its language. One never closed runs to the end, but not in plain text."""
    opening: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        mark = match.group(1)
        if opening is None:
            opening = match
        elif mark.startswith(opening.group(1)) and not match.group(2):
            yield opening.start(), match.end(), opening.group(2)
            opening = None
    if opening is not None and media_type != "text/plain":
        yield opening.start(), len(text), opening.group(2)


def _outside(
    pattern: re.Pattern[str], text: str, fences: list[tuple[int, int, str]]
) -> Iterator[re.Match[str]]:
    position = 0
    for start, end in [*((a, b) for a, b, _ in fences), (len(text), len(text))]:
        yield from pattern.finditer(text, position, start)
        position = end


# ---------------------------------------------------------------- blocks to spans


def _prose(text: str, start: int, end: int) -> Iterator[Span]:
    before = start
    for a, b in sentence_spans(text[start:end]):
        yield Span(start + a, start + b, _border(text, before, start + a))
        before = start + b


def _border(text: str, before: int, start: int) -> Border:
    gap = text[before:start]
    if _BLANK_LINE.search(gap):
        return Border.PARAGRAPH
    return Border.ITEM if "\n" in gap else Border.SENTENCE


def _rows(text: str, start: int, end: int) -> Iterator[Span]:
    """Rows of a table; the header, the line below it and the first row stay together."""
    spans = [match.span() for match in _LINE.finditer(text, start, end)]
    spans = [(a, a + len(text[a:b].rstrip())) for a, b in spans]
    has_header = len(spans) > 1 and _RULE.fullmatch(text, *spans[1]) is not None
    for index, (a, b) in enumerate(spans):
        below_header = has_header and index > 0
        border = Border.ITEM if index else Border.PARAGRAPH
        if below_header and index <= 2:
            border = Border.TOGETHER
        yield Span(a, b, border, "row", spans[0] if below_header else None)


def _fenced(text: str, start: int, end: int, language: str) -> Iterator[Span]:
    """Lines of fenced code; the fences stay with the code."""
    first = text.find("\n", start, end)
    first = end if first < 0 else first
    last = max(first, text.rfind("\n", first, end))
    closed = _FENCE.match(text, last + 1, end) is not None
    last = last if closed else end
    yield Span(*_stripped(text, start, first), Border.PARAGRAPH, "code")
    sections = definitions(text, first, last, language.lower())
    for index, span in enumerate(_code(text, first, last, sections, Border.PARAGRAPH)):
        yield span if index else replace(span, border=Border.TOGETHER)
    if closed:
        yield Span(*_stripped(text, last, end), Border.TOGETHER, "code")


def _code(
    text: str, start: int, end: int, sections: list[Section], border: Border
) -> Iterator[Span]:
    """Lines of code; `border` is that of a definition."""
    heads = iter(sections)
    head = next(heads, None)
    before, body = start, -1
    for match in _LINE.finditer(text, start, end):
        a = match.start()
        in_head = before < body
        here = _line_border(text, before, a)
        if head is not None and a == head.start:
            here, body = border, head.body
            head = next(heads, None)
        if in_head or _CLOSES.match(text, a):
            here = Border.TOGETHER
        yield Span(a, a + len(match.group().rstrip()), here, "code")
        before = match.end()


def _line_border(text: str, before: int, start: int) -> Border:
    gap = text[before:start]
    if gap.count("\n") < 2:
        return Border.SENTENCE
    return Border.PARAGRAPH if gap.endswith("\n") else Border.ITEM


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    line = text[start:end]
    return start + len(line) - len(line.lstrip()), start + len(line.rstrip())


def _joined(text: str, spans: list[Span]) -> Iterator[Span]:
    """Spans with borders closed below headings and lines that introduce something."""
    before: Span | None = None
    for span in spans:
        if before is not None and (before.kind == "heading" or _leads_in(text, before, span)):
            span = replace(span, border=Border.TOGETHER)
        before = span
        yield span


def _leads_in(text: str, before: Span, span: Span) -> bool:
    if before.kind != "text" or span.kind == "heading" or "\n" not in text[before.end : span.start]:
        return False
    tail = text[max(before.start, before.end - _LONGEST_LEAD_IN) : before.end]
    return _LEADS_IN.search(tail) is not None
