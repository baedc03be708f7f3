"""What an answer says that the passages do not: sentences without a source, strange numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from glm_rag.comparison import prepare
from glm_rag.quantities import Quantity, quantities_in
from glm_rag.text import detect_language, fold, sentence_spans
from glm_rag.types import Citation, Passage, Unsupported

# Marks of passages, and numbers of list items, are no claims. The fillers keep every offset.
_NO_CLAIM = re.compile(r"\[\d{1,3}(?:\s*[,，、]\s*\d{1,3})*\]|(?m:^\s*\d{1,3}[.)、])")
_MONTHS = (
    "january february march april may june july august september october november december"
).split()
_MONTH = re.compile(rf"\b({'|'.join(_MONTHS)})(?=\s+\d)|(?<=\d\s)({'|'.join(_MONTHS)})\b")


def find_unsupported(
    answer: str,
    passages: Sequence[Passage],
    citations: Sequence[Citation],
    *,
    question: str = "",
) -> tuple[Unsupported, ...]:
    """Sentences of `answer` that have no citation, and numbers that the passages do not hold.

    A number counts as held where a passage (its title included) or the question states it with
    the same unit; across languages, whose units differ, the value alone decides. Questions,
    and sentences without an informative word, claim nothing.
    """
    found = [*_sentences(answer, citations), *_numbers(answer, passages, question)]
    return tuple(sorted(found, key=lambda item: (item.start, item.end)))


def _sentences(answer: str, citations: Sequence[Citation]) -> Iterator[Unsupported]:
    cited = {(citation.answer_start, citation.answer_end) for citation in citations}
    for start, end in sentence_spans(answer):
        claims = answer[end - 1] not in "?？" and prepare(_blanked(answer[start:end])).terms
        if claims and (start, end) not in cited:
            yield Unsupported(start, end, "sentence")


def _numbers(answer: str, passages: Sequence[Passage], question: str) -> Iterator[Unsupported]:
    language = detect_language(answer)
    numbers: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for text in (question, *map(_read, passages)):
        stated = _stated(fold(text))
        pairs |= {(quantity.number, quantity.unit) for quantity in stated}
        if detect_language(text) != language:
            numbers |= {quantity.number for quantity in stated}
        numbers |= {quantity.number for quantity in stated if not quantity.unit}
    values = numbers | {number for number, _ in pairs}
    folded, places = _folded(_blanked(answer))
    for wanted in _stated(folded):
        pair = (wanted.number, wanted.unit)
        held = (pair in pairs or wanted.number in numbers) if wanted.unit else pair[0] in values
        if wanted.certain and not held:
            yield Unsupported(places[wanted.start], places[wanted.end - 1] + 1, "number")


def _stated(folded: str) -> list[Quantity]:
    return [*quantities_in(folded), *_months(folded)]


def _months(folded: str) -> Iterator[Quantity]:
    """Names of months in English dates, as numbers with the unit `month name`."""
    for match in _MONTH.finditer(folded):
        name = match[1] or match[2]
        yield Quantity(str(_MONTHS.index(name) + 1), "month name", True, *match.span())


def _read(passage: Passage) -> str:
    title = str(passage.document.metadata.get("title") or "")
    return f"{title}\n{passage.text}"


def _blanked(text: str) -> str:
    return _NO_CLAIM.sub(lambda match: " " * len(match.group()), text)


def _folded(text: str) -> tuple[str, list[int]]:
    """The folded text, and for each of its characters the place it comes from."""
    parts: list[str] = []
    places: list[int] = []
    for place, char in enumerate(text):
        part = fold(char)
        parts.append(part)
        places.extend([place] * len(part))
    return "".join(parts), places
