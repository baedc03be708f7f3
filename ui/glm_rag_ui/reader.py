"""A part of a document's whole text, with a passage marked in it. Pure functions.

Never the whole of a long text at once: a browser chokes on megabytes, and nobody reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from glm_rag.types import DocumentInfo, ExtractedDocument, PageSpan
from glm_rag_ui import evidence, render
from glm_rag_ui.evidence import Span
from glm_rag_ui.i18n import Translate

PART = 12_000
# A part begins and ends at a line where one is near.
_NEAR = 600


@dataclass(frozen=True, slots=True)
class Place:
    """Characters `[start, end)` of a document to show; none are marked where they are equal."""

    source: str
    start: int = 0
    end: int = 0


def place(parameters: Mapping[str, str]) -> Place | None:
    """What the parameters of an address ask for; None where they make no sense."""
    source = parameters.get("source", "")
    try:
        start = int(parameters.get("start") or 0)
        end = int(parameters.get("end") or start)
    except ValueError:  # also a number of thousands of digits
        return None
    return Place(source, start, end) if 0 <= start <= end else None


def around(text: str, passage: Span) -> Span:
    """The part to show first: the passage with more behind it than before it."""
    start = min(max(passage[0], 0), len(text))
    return part_from(text, max(0, start - PART // 4))


def part_from(text: str, begin: int) -> Span:
    """The part that begins at `begin`, or at a line nearby."""
    begin = _line_start(text, max(0, min(begin, len(text))))
    return begin, _line_start(text, min(begin + PART, len(text)), after=begin)


def part_before(text: str, stop: int) -> Span:
    """The part that ends at `stop`."""
    begin = max(0, stop - PART)
    return (_line_start(text, begin) if begin else 0), stop


def _line_start(text: str, at: int, *, after: int = -1) -> int:
    """The beginning of the line that holds `at`, if it is near and behind `after`; else `at`."""
    if at >= len(text):
        return len(text)
    found = text.rfind("\n", max(0, at - _NEAR), at) + 1
    return found if found > max(after, 0) else at


def text_part(
    document: ExtractedDocument, part: Span, passage: Span, t: Translate, *, key: str = "passage"
) -> str:
    """HTML of characters `part`, with page breaks, and `passage` marked and named `key`."""
    pieces = []
    anchor = f' id="{render.escape(key)}"'
    for number, (begin, end) in _by_page(document.pages, part):
        if number:
            pieces.append(f'<div class="gr-break"><span>{t("page", n=number)}</span></div>')
        low, high = max(passage[0], begin), min(passage[1], end)
        spans = [(low - begin, high - begin)] if low < high else []
        pieces.append(evidence.highlighted(document.text[begin:end], spans, anchor))
        anchor = "" if spans else anchor
    return f'<div class="gr-reader" tabindex="0">{"".join(pieces)}</div>'


def _by_page(pages: Sequence[PageSpan], part: Span) -> Iterator[tuple[int, Span]]:
    """The part cut where pages begin, with the number of the page that begins there, else 0."""
    begin, stop = part
    number = 0
    for page in pages:
        if begin < page.start < stop:
            yield number, (begin, page.start)
            begin, number = page.start, page.number
        elif page.start <= begin < page.end:
            number = page.number
    yield number, (begin, stop)


def page_at(pages: Sequence[PageSpan], offset: int) -> int | None:
    """Number of the page that holds a character; None for a document without pages."""
    found = [page.number for page in pages if page.start <= offset]
    return found[-1] if found else (pages[0].number if pages else None)


def head(info: DocumentInfo, headings: Sequence[str], num_pages: int, t: Translate) -> str:
    """Title, file, size, language and where the passage stands in the document."""
    name = render.file_name(info.source)
    facts = [
        t("language_zh" if info.language == "zh" else "language_en"),
        size(info.size),
        t("characters", n=info.num_characters),
    ]
    if num_pages:
        facts.append(t("num_pages", n=num_pages))
    if name != info.title:
        facts.insert(0, name)
    shown = " · ".join(f"<bdi>{render.escape(fact)}</bdi>" for fact in facts if fact)
    path = " › ".join(headings)
    where = f'<p class="gr-path"><bdi>{render.escape(path)}</bdi></p>' if path else ""
    title = render.escape(info.title or name)
    return f'<header class="gr-document"><h1 dir="auto">{title}</h1><p>{shown}</p>{where}</header>'


def size(num_bytes: int) -> str:
    """Bytes as a short figure; nothing for a text that belongs to no file."""
    if num_bytes <= 0:
        return ""
    value, unit = float(num_bytes), "B"
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
