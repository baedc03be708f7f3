"""Put pages together into one text and remember where each lies."""

from __future__ import annotations

from collections.abc import Sequence

from glm_rag.types import PageSpan


def join_pages(pages: Sequence[str]) -> tuple[str, tuple[PageSpan, ...]]:
    """Join pages by blank lines; pages without text have no span. Numbers count from 1."""
    parts: list[str] = []
    spans: list[PageSpan] = []
    position = 0
    for number, text in enumerate(pages, start=1):
        if not text:
            continue
        if parts:
            parts.append("\n\n")
            position += 2
        parts.append(text)
        spans.append(PageSpan(number, position, position + len(text)))
        position += len(text)
    return "".join(parts), tuple(spans)


def page_list(numbers: Sequence[int], noun: str = "page") -> str:
    """Ascending page numbers in short: `pages 1, 3-7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    listed = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
    return f"{noun} {listed}" if len(numbers) == 1 else f"{noun}s {listed}"
