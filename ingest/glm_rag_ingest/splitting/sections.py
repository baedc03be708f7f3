"""What lies under which heading: the path above a place, the section around a chunk."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from glm_rag.types import PageSpan


@dataclass(frozen=True, slots=True)
class Section:
    """Characters `[start, end)` under one heading, which itself takes `[start, body)`."""

    start: int
    body: int
    end: int
    title: str


class Outline:
    """The nested sections of a text of `length` characters."""

    def __init__(self, sections: Iterable[Section], length: int) -> None:
        self._sections = [Section(0, 0, length, ""), *sections]  # the document itself comes first
        self._parents: list[int] = []
        self._first_child: dict[int, int] = {}  # where the text before the first one ends
        open_: list[int] = []
        for index, section in enumerate(self._sections):
            while open_ and self._sections[open_[-1]].end <= section.start:
                open_.pop()
            parent = open_[-1] if open_ else 0
            self._parents.append(parent)
            if index:
                self._first_child.setdefault(parent, section.start)
            open_.append(index)

    def path(self, position: int) -> tuple[str, ...]:
        """Titles of the sections in whose text a position lies, outermost first."""
        index, titles = self._last_before(position), []
        while index:
            section = self._sections[index]
            if section.body <= position < section.end:
                titles.append(section.title)
            index = self._parents[index]
        return tuple(reversed(titles))

    def around(self, start: int, end: int) -> tuple[int, int]:
        """The smallest section that holds `[start, end)`.

        Text before a section's first sub-section counts as one, with the heading above it.
        """
        index = self._last_before(start)
        while index and self._sections[index].end < end:
            index = self._parents[index]
        section = self._sections[index]
        introduction = self._first_child.get(index, section.end)
        return section.start, introduction if end <= introduction else section.end

    def _last_before(self, position: int) -> int:
        return bisect_right(self._sections, position, key=lambda section: section.start) - 1


def by_level(headings: Sequence[tuple[int, Section]], length: int) -> list[Section]:
    """Sections of headings with their level: each ends where the next of its level or above begins.

    Args:
        headings: in order; the `end` of each is not read.
        length: of the text.
    """
    ends = [length] * len(headings)
    open_: list[int] = []
    for index, (level, section) in enumerate(headings):
        while open_ and headings[open_[-1]][0] >= level:
            ends[open_.pop()] = section.start
        open_.append(index)
    return [replace(section, end=end) for (_, section), end in zip(headings, ends, strict=True)]


def pages_around(pages: Sequence[PageSpan], start: int, end: int) -> tuple[int, int] | None:
    """From the beginning of the page that holds `start` to the end of the one that holds `end`."""
    first = page_index(pages, start)
    if first is None:
        return None
    last = page_index(pages, end - 1)
    return pages[first].start, max(end, pages[first if last is None else last].end)


def page_index(pages: Sequence[PageSpan], position: int) -> int | None:
    """Which page a position lies on; None before the first."""
    index = bisect_right(pages, position, key=lambda page: page.start) - 1
    return index if index >= 0 else None
