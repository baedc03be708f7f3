"""Fill chunks with spans, counted exactly as the embedder will read them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from glm_rag.settings import SplittingSettings
from glm_rag.types import Chunk, ExtractedDocument
from glm_rag_ingest.splitting.sections import Outline, page_index, pages_around
from glm_rag_ingest.splitting.spans import Border, Kind, Span, divide

# Where a sentence, row or line that is too long may be cut, best first: at clauses, lines and
# cells, at spaces.
_CUTS = (re.compile(r"[，、；：]|[,;:](?=\s)|\n|\|(?=\s)"), re.compile(r"\s"))
_CELL_END = re.compile(r"(?<!\\)\|")
_LONGEST_TOKEN = 16  # characters per token; a longer text is cut without counting it whole
_SMALL_SECTION = 8  # sections under an eighth of a chunk join the next one
_PREFIX_SHARE = 4  # headings take at most a quarter of a chunk, so does a table's header


@dataclass(frozen=True, slots=True)
class _Prefix:
    """What is embedded before a chunk's text."""

    headings: tuple[str, ...] = ()
    table_header: str = ""

    def before(self, text: str) -> str:
        return Chunk(
            0, 0, text, headings=self.headings, table_header=self.table_header
        ).embedding_text


@dataclass(frozen=True, slots=True)
class _Unit:
    """A span that fits into a chunk, or a piece of one that does not.

    `prefix` is that of a chunk which begins here, `tokens` are those of the text alone.
    """

    start: int
    end: int
    tokens: int
    prefix: _Prefix
    border: Border
    kind: Kind


def split(
    document: ExtractedDocument,
    count_tokens: Callable[[str], int],
    settings: SplittingSettings,
    max_tokens: int,
) -> list[Chunk]:
    """Cut a document into chunks, in order.

    Every chunk is a slice of `document.text`; every character that is not white space is in at
    least one; `count_tokens(chunk.embedding_text)` is at most the smaller of
    `settings.chunk_tokens` and `max_tokens`. Sections of Markdown headings, and definitions of
    source code, are kept apart and give each chunk its `headings`. Paragraphs, list items and
    rows stay whole where that leaves a chunk at least half full; sentences stay whole where they
    fit. A chunk that begins inside a table has the table's `table_header`. Neighbouring chunks of
    prose in one section share whole sentences of up to `settings.overlap_tokens`.

    Args:
        count_tokens: tokens of a text as the embedder reads it, special tokens included.
        max_tokens: most tokens the embedder reads.
    """
    splitter = _Splitter(document.text, count_tokens, min(settings.chunk_tokens, max_tokens))
    spans, outline = divide(document)
    units = list(splitter.units(spans, outline))
    chunks: list[Chunk] = []
    start = new = 0
    while new < len(units):
        start, end = splitter.chunk_end(units, start, new)
        if end == new:  # the first unit alone is too long together with its prefix
            units[new : new + 1] = splitter.halves(units[new])
            start = new
            continue
        chunks.append(_chunk(document, outline, units[start], units[end - 1].end))
        new = end
        start = _overlap_start(units, start, new, settings.overlap_tokens)
    return chunks


def _chunk(document: ExtractedDocument, outline: Outline, first: _Unit, end: int) -> Chunk:
    start, pages = first.start, document.pages
    page = page_index(pages, start)
    return Chunk(
        start,
        end,
        document.text[start:end],
        page=None if page is None else pages[page].number,
        headings=first.prefix.headings,
        table_header=first.prefix.table_header,
        section=pages_around(pages, start, end) or outline.around(start, end),
    )


def _overlap_start(units: Sequence[_Unit], start: int, new: int, overlap_tokens: int) -> int:
    """First unit before `new` that the next chunk repeats; `new` itself for none."""
    if new == len(units) or units[new].kind != "text":
        return new
    first, tokens = new, 0
    while first - 1 > start:
        before = units[first - 1]
        tokens += before.tokens
        outside = before.kind != "text" or before.prefix != units[new].prefix
        if tokens > overlap_tokens or outside:
            break
        first -= 1
    return first


class _Splitter:
    """The text, its counter and the limit; counts every span once, and every chunk."""

    def __init__(self, text: str, count_tokens: Callable[[str], int], limit: int) -> None:
        self._text = text
        self._count = count_tokens
        self._limit = limit
        self._overhead = max(0, count_tokens("a") - 1)  # an empty text may count as a token
        self._rooms: dict[_Prefix, int] = {}
        self._paths: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._headers: dict[tuple[int, int], str] = {}

    def units(self, spans: Sequence[Span], outline: Outline) -> Iterator[_Unit]:
        """Spans with their tokens and prefixes, cut where they are too long for a chunk."""
        for span in spans:
            headings = self._path(outline.path(span.start))
            header = self._table_header(span.header) if span.header else ""
            bare, full = _Prefix(headings), _Prefix(headings, header)
            for a, b, tokens in self._cut(span.start, span.end, self._room(full), level=0):
                # Packing takes a bar below a table header for the beginning of a row.
                prefix = bare if a > span.start and self._text[a] == "|" else full
                border = span.border if a == span.start else Border.INSIDE
                yield _Unit(a, b, tokens, prefix, border, span.kind)

    def chunk_end(self, units: Sequence[_Unit], start: int, new: int) -> tuple[int, int]:
        """Where a chunk with new unit `new` starts and ends; both `new` if that unit must be cut.

        The overlap before `new` gives way where it would push the unit out.
        """
        while True:
            end = self._end(units, start, new)
            if end > new or start == new:
                return start, end
            start += 1

    def halves(self, unit: _Unit) -> list[_Unit]:
        """A unit cut in two at its middle character; without a prefix if it has one only."""
        if unit.end - unit.start == 1:
            return [_Unit(unit.start, unit.end, 0, _Prefix(), unit.border, unit.kind)]
        middle = (unit.start + unit.end) // 2
        pieces = []
        for a, b in ((unit.start, middle), (middle, unit.end)):
            a, b = self._stripped(a, b)
            is_first = a == unit.start
            bare = not is_first and self._text[a : a + 1] == "|"
            prefix = _Prefix(unit.prefix.headings) if bare else unit.prefix
            border = unit.border if is_first else Border.INSIDE
            if b > a:
                pieces.append(_Unit(a, b, self._tokens(a, b), prefix, border, unit.kind))
        return pieces

    # ------------------------------------------------------------ one chunk

    def _end(self, units: Sequence[_Unit], start: int, new: int) -> int:
        """The best end of a chunk that keeps the limit, or `new` where there is none."""
        end, is_full = self._estimated_end(units, start, new)
        best = self._best_end(units, start, new, end) if is_full else end
        if best == new or self._fits(units, start, best):
            return best
        low, high = new, best - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(units, start, middle):
                low = middle
            else:
                high = middle - 1
        best = self._best_end(units, start, new, low)
        return best if best == low or self._fits(units, start, best) else low

    def _estimated_end(self, units: Sequence[_Unit], start: int, new: int) -> tuple[int, bool]:
        """The last end by the sum of tokens, and whether it was the room that set it."""
        first = units[start]
        room = self._room(first.prefix)
        depth = len(first.prefix.headings)
        tokens = sum(unit.tokens for unit in units[start : new + 1])
        if tokens > room and start < new:
            return new, True
        for end in range(new + 1, len(units)):
            unit = units[end]
            if unit.prefix.headings[:depth] != first.prefix.headings:
                return end, False
            if unit.border is Border.HEADING and tokens * _SMALL_SECTION >= self._limit:
                return end, False
            tokens += unit.tokens
            if tokens > room:
                return end, True
        return len(units), False

    def _best_end(self, units: Sequence[_Unit], start: int, new: int, end: int) -> int:
        """The best border that leaves the chunk at least half full, the last of equal ones.

        Where that would tear things that belong together, a border in the first half will do.
        """
        if end == new:
            return end
        tokens = sum(unit.tokens for unit in units[start:end])
        half = tokens / 2
        best = end
        for place in range(end, new, -1):
            if tokens < half and units[best].border > Border.TOGETHER:
                break
            if units[place].border > units[best].border:
                best = place
            tokens -= units[place - 1].tokens
        return best

    def _fits(self, units: Sequence[_Unit], start: int, end: int) -> bool:
        first, last = units[start], units[end - 1]
        if end - start == 1 and first.end - first.start == 1 and first.prefix == _Prefix():
            return True  # a single character cannot be cut
        whole = first.prefix.before(self._text[first.start : last.end])
        return self._count(whole) <= self._limit

    # ------------------------------------------------------------ what is too long

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

    # ------------------------------------------------------------ tokens

    def _tokens(self, start: int, end: int) -> int:
        return self._count(self._text[start:end]) - self._overhead

    def _room(self, prefix: _Prefix) -> int:
        """Tokens of text that fit behind a prefix."""
        if prefix not in self._rooms:
            taken = self._count(prefix.before("")) if prefix != _Prefix() else self._overhead
            self._rooms[prefix] = max(1, self._limit - taken)
        return self._rooms[prefix]

    def _is_small(self, prefix: str) -> bool:
        return (self._count(prefix) - self._overhead) * _PREFIX_SHARE <= self._limit

    def _path(self, headings: tuple[str, ...]) -> tuple[str, ...]:
        """Headings without the outer ones where they would crowd out the text."""
        if headings not in self._paths:
            shorter = headings
            while shorter and not self._is_small(_Prefix(shorter).before("")):
                shorter = shorter[1:]
            self._paths[headings] = shorter
        return self._paths[headings]

    def _table_header(self, header: tuple[int, int]) -> str:
        """The header row, its last cells left out where it would crowd out the rows."""
        if header not in self._headers:
            row = self._text[slice(*header)]
            ends = [0, *(match.end() for match in _CELL_END.finditer(row, 1))]
            fitting = bisect_right(ends, False, key=lambda end: not self._is_small(row[:end]))
            self._headers[header] = row[: ends[max(0, fitting - 1)]]
        return self._headers[header]
