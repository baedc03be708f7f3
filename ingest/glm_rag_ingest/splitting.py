"""Cut extracted text into chunks that end where sentences and sections do.

Token-exact for the embedder: what is embedded of a chunk, headings included, never exceeds the
limit, so no text is lost to truncation.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from glm_rag.config import SplittingSettings
from glm_rag.text import sentence_spans
from glm_rag.types import Chunk, ExtractedDocument, PageSpan
from glm_rag_ingest.loaders.base import heading_title

VERSION = "split/1"

_HEADING = re.compile(r"^(#{1,6})[ \t]+(\S.*)$", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)
# Where a sentence that is too long may be cut, best first: at clauses and lines, at spaces.
_CUTS = (re.compile(r"[，、；：]|[,;:](?=\s)|\n"), re.compile(r"\s"))
_LONGEST_TOKEN = 16  # characters per token; a longer text is cut without counting it whole
_SMALL_SECTION = 8  # sections under an eighth of a chunk join the next one
_LONGEST_HEADING = 200  # characters; more is a paragraph that begins with `#`
_HEADINGS_SHARE = 4  # the path of headings takes at most a quarter of a chunk


@dataclass(frozen=True, slots=True)
class _Unit:
    """A heading line, a sentence, or a piece of a sentence that is too long."""

    start: int
    end: int
    tokens: int
    headings: tuple[str, ...]
    is_heading: bool


def split(
    document: ExtractedDocument,
    count_tokens: Callable[[str], int],
    settings: SplittingSettings,
    max_tokens: int,
) -> list[Chunk]:
    """Cut a document into chunks, in order.

    Every chunk is a slice of `document.text`; every character that is not white space is in at
    least one; `count_tokens(chunk.embedding_text)` is at most the smaller of
    `settings.chunk_tokens` and `max_tokens`. Sections of Markdown headings are kept apart and
    give each chunk its `headings`; neighbours in one section share whole sentences of up to
    `settings.overlap_tokens`.

    Args:
        count_tokens: tokens of a text as the embedder reads it, special tokens included.
        max_tokens: most tokens the embedder reads.
    """
    splitter = _Splitter(document.text, count_tokens, min(settings.chunk_tokens, max_tokens))
    units = list(splitter.units(has_headings=document.media_type != "application/pdf"))
    chunks: list[Chunk] = []
    start = new = 0
    while new < len(units):
        start, end = splitter.chunk_end(units, start, new)
        if end == new:  # the first unit alone is too long together with its headings
            units[new : new + 1] = splitter.halves(units[new])
            start = new
            continue
        chunks.append(_chunk(document, units[start:end]))
        new = end
        start = _overlap_start(units, start, new, settings.overlap_tokens)
    return chunks


def _chunk(document: ExtractedDocument, units: Sequence[_Unit]) -> Chunk:
    start, end = units[0].start, units[-1].end
    page = _page_at(document.pages, start)
    return Chunk(start, end, document.text[start:end], page, units[0].headings)


def _page_at(pages: Sequence[PageSpan], position: int) -> int | None:
    index = bisect_right(pages, position, key=lambda page: page.start) - 1
    return pages[index].number if index >= 0 else None


def _overlap_start(units: Sequence[_Unit], start: int, new: int, overlap_tokens: int) -> int:
    """First unit before `new` that the next chunk repeats; `new` itself for none."""
    if new == len(units) or units[new].is_heading:
        return new
    first, tokens = new, 0
    while first - 1 > start:
        before = units[first - 1]
        tokens += before.tokens
        outside = before.is_heading or before.headings != units[new].headings
        if tokens > overlap_tokens or outside:
            break
        first -= 1
    return first


class _Splitter:
    """The text, its counter and the limit; counts every sentence once."""

    def __init__(self, text: str, count_tokens: Callable[[str], int], limit: int) -> None:
        self._text = text
        self._count = count_tokens
        self._limit = limit
        self._overhead = max(0, count_tokens("a") - 1)  # an empty text may count as a token
        self._paths: dict[tuple[str, ...], tuple[tuple[str, ...], int]] = {(): ((), 0)}

    def units(self, *, has_headings: bool) -> Iterator[_Unit]:
        path: list[tuple[int, str]] = []
        position = 0
        for match in _headings(self._text) if has_headings else ():
            yield from self._sentences(position, match.start(), path)
            level, title = len(match.group(1)), heading_title(match.group(2))
            path = [(depth, name) for depth, name in path if depth < level]
            yield from self._pieces(match.start(), match.end(), self._trimmed(path), heading=True)
            path.append((level, title))
            position = match.end()
        yield from self._sentences(position, len(self._text), path)

    def chunk_end(self, units: Sequence[_Unit], start: int, new: int) -> tuple[int, int]:
        """Where a chunk with new unit `new` starts and ends; both `new` if that unit must be cut.

        The overlap before `new` gives way where it would push the unit out.
        """
        while True:
            end = self._fitting_end(units, start, new, self._estimated_end(units, start, new))
            if end > new or start == new:
                return start, _without_last_headings(units, new, end)
            start += 1

    def halves(self, unit: _Unit) -> list[_Unit]:
        """A unit cut in two at its middle character; without headings if it has one only."""
        if unit.end - unit.start == 1:
            return [_Unit(unit.start, unit.end, 0, (), False)]
        middle = (unit.start + unit.end) // 2
        spans = ((unit.start, middle), (middle, unit.end))
        return [
            _Unit(a, b, self._tokens(a, b), unit.headings, unit.is_heading and a == unit.start)
            for a, b in (self._stripped(a, b) for a, b in spans)
            if b > a
        ]

    def _fitting_end(self, units: Sequence[_Unit], start: int, new: int, end: int) -> int:
        """The last end up to the estimated one with which the chunk keeps the limit, or `new`."""
        if end == new or self._fits(units, start, end):
            return end
        low, high = new, end - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(units, start, middle):
                low = middle
            else:
                high = middle - 1
        return low

    def _estimated_end(self, units: Sequence[_Unit], start: int, new: int) -> int:
        first = units[start]
        room = self._room(first.headings)
        tokens = sum(unit.tokens for unit in units[start : new + 1])
        if tokens > room and start < new:
            return new
        end = new + 1
        while end < len(units) and tokens + units[end].tokens <= room:
            unit = units[end]
            depth = len(first.headings)
            if unit.headings[:depth] != first.headings:
                break
            if unit.is_heading and tokens * _SMALL_SECTION >= self._limit:
                break
            tokens += unit.tokens
            end += 1
        return end

    def _fits(self, units: Sequence[_Unit], start: int, end: int) -> bool:
        first, last = units[start], units[end - 1]
        if end - start == 1 and first.end - first.start == 1 and not first.headings:
            return True  # a single character cannot be cut
        chunk = Chunk(
            first.start, last.end, self._text[first.start : last.end], headings=first.headings
        )
        return self._count(chunk.embedding_text) <= self._limit

    def _sentences(self, start: int, end: int, path: list[tuple[int, str]]) -> Iterator[_Unit]:
        headings = self._trimmed(path)
        for a, b in sentence_spans(self._text[start:end]):
            yield from self._pieces(start + a, start + b, headings)

    def _pieces(
        self, start: int, end: int, headings: tuple[str, ...], *, heading: bool = False
    ) -> Iterator[_Unit]:
        room = self._room(headings)
        for a, b, tokens in self._cut(start, end, room, level=0):
            yield _Unit(a, b, tokens, headings, heading and a == start)

    def _cut(self, start: int, end: int, room: int, level: int) -> Iterator[tuple[int, int, int]]:
        if end - start <= max(1, room) * _LONGEST_TOKEN:
            tokens = self._tokens(start, end)
            if tokens <= room or end - start == 1:
                yield start, end, tokens
                return
        for a, b in self._cut_spans(start, end, room, level):
            yield from self._cut(a, b, room, level + 1)

    def _cut_spans(self, start: int, end: int, room: int, level: int) -> Iterator[tuple[int, int]]:
        if level < len(_CUTS):
            marks = _CUTS[level].finditer(self._text, start, end)
            borders = [start, *(mark.end() for mark in marks), end]
        else:
            step = max(1, min(room, (end - start + 1) // 2))
            borders = [*range(start, end, step), end]
        for a, b in pairwise(borders):
            span = self._stripped(a, b)
            if span[0] < span[1]:
                yield span

    def _stripped(self, start: int, end: int) -> tuple[int, int]:
        piece = self._text[start:end]
        left = len(piece) - len(piece.lstrip())
        return start + left, start + len(piece.rstrip()) if piece.strip() else start + left

    def _tokens(self, start: int, end: int) -> int:
        return self._count(self._text[start:end]) - self._overhead

    def _room(self, headings: tuple[str, ...]) -> int:
        return max(1, self._limit - self._overhead - self._paths[headings][1])

    def _trimmed(self, path: list[tuple[int, str]]) -> tuple[str, ...]:
        """The path without its outer headings where it would crowd out the text."""
        full = tuple(title for _, title in path)
        headings = full
        while headings not in self._paths:
            tokens = self._count(Chunk(0, 0, "", headings=headings).embedding_text)
            if (tokens - self._overhead) * _HEADINGS_SHARE <= self._limit:
                self._paths[headings] = (headings, tokens - self._overhead)
            else:
                headings = headings[1:]
        self._paths[full] = self._paths[headings]
        return self._paths[full][0]


def _headings(text: str) -> Iterator[re.Match[str]]:
    """Heading lines outside fenced code."""
    fences = [match.start() for match in _FENCE.finditer(text)]
    for match in _HEADING.finditer(text):
        in_code = bisect_right(fences, match.start()) % 2
        if not in_code and len(heading_title(match.group(2))) <= _LONGEST_HEADING:
            yield match


def _without_last_headings(units: Sequence[_Unit], new: int, end: int) -> int:
    """Leave headings at the end of a chunk to the text below them."""
    last = end
    while last > new + 1 and last < len(units) and units[last - 1].is_heading:
        last -= 1
    return last
