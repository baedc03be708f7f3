"""What PDFium's text needs: hyphens and Chinese lines mended, running headers and footers out."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from glm_rag_ingest.loaders.base import clean_text

HYPHEN = "\ufffe"  # what PDFium writes for a hyphen at the end of a line
BULLETS = str.maketrans(dict.fromkeys("\uf0b7\uf0a7\uf0d8\uf06c\uf0fc", "•"))
_HYPHENATED = re.compile(rf"(\w+){HYPHEN}\s*(\w+)")
_WORD = re.compile(r"\w+(?:-\w+)*")
_WIDE = r"[\u3001-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]"
# Characters set far apart come with a space behind each; words of a table row keep theirs.
_SPACED = re.compile(rf"(?<!{_WIDE}){_WIDE}(?: {_WIDE})+(?!{_WIDE})")
# Fonts show these for plain characters: radicals for Chinese ones, ligatures for Latin letters.
_STAND_INS = re.compile(r"[\u2e80-\u2fdf\ufb00-\ufb06]+")
_FULL_LINE = 0.8  # a line this much of the longest was broken by the margin
_SENTENCE_ENDS = "。！？；：.!?;:"

_EDGE_LINES = 3  # at the top and at the bottom of a page, where headers and footers stand
_LEAST_PAGES = 3
_MOST_PAGES_HAVE_IT = 0.6  # of all, or of the even or odd ones, whose headers may differ
_LONGEST_RUNNING = 200  # characters
_NUMBER = re.compile(r"\d+")
# Possessive, because `pp` is twice `p` too.
_PAGE_NUMBER = re.compile(
    r"(?>\d|\W|_|page|seite|página|pagina|of|von|de|sur|no|pp?|第|页|頁|共|总|總)*+", re.IGNORECASE
)


def normalise(raw: str, words: Counter[str] | None = None) -> str:
    """Repair what PDFium leaves: line ends, line-end hyphens, spaces between Han characters.

    Args:
        words: how often the whole document has each word (`count_words`), which decides whether
            a hyphen at a line end belongs to the word; by default those of `raw`.
    """
    text = raw.replace("\r\n", "\n").translate(BULLETS)
    text = _STAND_INS.sub(lambda match: unicodedata.normalize("NFKC", match.group()), text)
    text = _SPACED.sub(lambda match: match.group().replace(" ", ""), text)
    words = words if words is not None else count_words([text])
    return clean_text(_join_chinese_lines(_mend_hyphens(text, words)))


def count_words(pages: Sequence[str]) -> Counter[str]:
    """How often each word stands on pages, in lower case; empty if no word is cut anywhere."""
    if not any(HYPHEN in page for page in pages):
        return Counter()
    return Counter(word.lower() for page in pages for word in _WORD.findall(page))


def _mend_hyphens(text: str, words: Counter[str]) -> str:
    """Join words cut at a line end; keep the hyphen where the document writes it elsewhere."""
    if HYPHEN not in text:
        return text

    def mend(match: re.Match[str]) -> str:
        joined, hyphenated = match.group(1) + match.group(2), f"{match.group(1)}-{match.group(2)}"
        if words[joined.lower()] == words[hyphenated.lower()]:
            return joined if joined.islower() or joined.istitle() else hyphenated
        return max(joined, hyphenated, key=lambda word: words[word.lower()])

    return _HYPHENATED.sub(mend, text).replace(HYPHEN, "-")


def _join_chinese_lines(text: str) -> str:
    """Undo the line breaks inside Chinese paragraphs, so that a word is found across them."""
    lines = text.split("\n")
    full = _FULL_LINE * max(len(line) for line in lines)
    parts: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        line = line.rstrip(" ")
        runs_on = (
            len(line) >= max(full, 12)
            and re.match(_WIDE, line[-1])
            and line[-1] not in _SENTENCE_ENDS
            and re.match(_WIDE, following)
        )
        parts.append(line if runs_on else f"{line}\n")
    return "".join(parts)


def without_running_lines(pages: Sequence[str]) -> list[str]:
    """Leave out the headers and footers that most pages repeat, and the page numbers.

    A line at the edge of a page is a running one if most pages have it there, digits aside, and
    its numbers are the same everywhere or count the pages. Its first appearance stays, since a
    name or a table's header may stand nowhere else; page numbers do not. A page of nothing else
    is kept whole.
    """
    lines = [page.replace("\r\n", "\n").split("\n") for page in pages]
    edges = [_edges(page) for page in lines]
    seen: dict[str, _Seen] = {}
    for number, (page, places) in enumerate(zip(lines, edges, strict=True)):
        for place in places:
            key, numbers = _without_digits(page[place])
            seen.setdefault(key, {}).setdefault(number, set()).add(numbers)
    texts = [number for number, places in enumerate(edges) if places]
    running = {key: tuple(_running(marks, texts)) for key, marks in seen.items()}
    return [
        _kept(page, places, number, running)
        for number, (page, places) in enumerate(zip(lines, edges, strict=True))
    ]


# The numbers in the lines of one wording, by the page they stand on, counted from 0.
_Seen = dict[int, set[tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class _Running:
    """A line that runs through the pages from `first` on.

    Either with the same `numbers` everywhere, or with one at `place` that is `offset` more than
    the page's own.
    """

    first: int
    numbers: tuple[int, ...] | None = None
    place: int = 0
    offset: int = 0

    def has(self, numbers: tuple[int, ...], page: int) -> bool:
        """Whether a line with these numbers on this page is one of the row."""
        if self.numbers is not None:
            return numbers == self.numbers
        return self.place < len(numbers) and numbers[self.place] == page + self.offset


def _edges(lines: Sequence[str]) -> list[int]:
    """Where the first and the last lines with text stand."""
    filled = [i for i, line in enumerate(lines) if line.strip()]
    places = sorted({*filled[:_EDGE_LINES], *filled[-_EDGE_LINES:]})
    return [i for i in places if len(lines[i]) <= _LONGEST_RUNNING] or filled[:1]


def _without_digits(line: str) -> tuple[str, tuple[int, ...]]:
    numbers = tuple(int(number[-9:]) for number in _NUMBER.findall(line))
    return _NUMBER.sub("#", " ".join(line.split())), numbers


def _running(seen: _Seen, texts: Sequence[int]) -> Iterator[_Running]:
    """How a wording runs through all pages with text, or through the even or the odd ones."""
    for side in (texts, texts[::2], texts[1::2]):
        least = max(_LEAST_PAGES, _MOST_PAGES_HAVE_IT * len(side))
        having = [number for number in side if number in seen]
        if len(having) < least:
            continue
        same = Counter(numbers for number in having for numbers in seen[number])
        numbers, count = same.most_common(1)[0]
        if count >= least:
            yield _Running(min(n for n in seen if numbers in seen[n]), numbers=numbers)
        counted = Counter(
            (place, value - number)
            for number in having
            for place, value in {item for numbers in seen[number] for item in enumerate(numbers)}
        )
        (place, offset), count = counted.most_common(1)[0] if counted else ((0, 0), 0)
        if count >= least:
            yield _Running(min(having), place=place, offset=offset)


def _kept(
    page: Sequence[str],
    places: Sequence[int],
    number: int,
    running: Mapping[str, Sequence[_Running]],
) -> str:
    dropped = {place for place in places if _is_dropped(page[place], number, running)}
    kept = [line for place, line in enumerate(page) if place not in dropped]
    return "\n".join(kept if any(line.strip() for line in kept) else page)


def _is_dropped(line: str, number: int, running: Mapping[str, Sequence[_Running]]) -> bool:
    key, numbers = _without_digits(line)
    for found in running.get(key, ()):
        if found.has(numbers, number):
            is_page_number = found.numbers is None and _PAGE_NUMBER.fullmatch(line) is not None
            return number > found.first or is_page_number
    return False
