"""What an answer says that the passages do not: sentences without a source, strange numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from glm_rag.comparison import prepare
from glm_rag.quantities import Quantity, quantities_in
from glm_rag.text import detect_language, fold, fold_with_origin, sentence_spans
from glm_rag.types import Citation, Language, Passage, Unsupported

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
    cited = {(citation.answer_start, citation.answer_end) for citation in citations}
    doubter = Doubter(passages, question=question)
    return tuple(
        found
        for span in sentence_spans(answer)
        for found in doubter.doubts(answer, span, cited=span in cited)
    )


class Doubter:
    """What passages state, read once, to doubt sentence after sentence."""

    def __init__(self, passages: Sequence[Passage], *, question: str = "") -> None:
        self._texts = [
            (detect_language(text), _stated(fold(text)))
            for text in (question, *map(_read, passages))
        ]
        self._held: dict[Language, tuple[set[str], set[tuple[str, str]]]] = {}

    def doubts(self, answer: str, span: tuple[int, int], *, cited: bool) -> list[Unsupported]:
        """The sentence at `span` unless it is cited, and its strange numbers, in order."""
        start, end = span
        sentence = answer[start:end]
        # A number at the beginning counts the items of a list only where a line begins.
        begins_line = answer[:start].rstrip(" \t")[-1:] in {"", "\n"}
        found = list(self._numbers(_blanked(sentence, begins_line=begins_line), start))
        claims = sentence[-1] not in "?？" and prepare(_blanked(sentence)).terms
        if claims and not cited:
            found.append(Unsupported(start, end, "sentence"))
        return sorted(found, key=lambda item: (item.start, item.end))

    def _numbers(self, sentence: str, start: int) -> Iterator[Unsupported]:
        numbers, pairs = self._known(detect_language(sentence))
        values = numbers | {number for number, _ in pairs}
        folded, origin = fold_with_origin(sentence)
        for wanted in _stated(folded):
            pair = (wanted.number, wanted.unit)
            held = (pair in pairs or wanted.number in numbers) if wanted.unit else pair[0] in values
            if wanted.certain and not held:
                first, last = origin[wanted.start][0], origin[wanted.end - 1][1]
                yield Unsupported(start + first, start + last, "number")

    def _known(self, language: Language) -> tuple[set[str], set[tuple[str, str]]]:
        """Numbers that count with any unit, and numbers with their units."""
        if language not in self._held:
            numbers: set[str] = set()
            pairs: set[tuple[str, str]] = set()
            for spoken, stated in self._texts:
                pairs |= {(quantity.number, quantity.unit) for quantity in stated}
                numbers |= {q.number for q in stated if not q.unit or spoken != language}
            self._held[language] = numbers, pairs
        return self._held[language]


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


def _blanked(sentence: str, *, begins_line: bool = True) -> str:
    """A sentence with white space in the place of what claims nothing."""
    before = "\n" if begins_line else "."
    return _NO_CLAIM.sub(lambda match: " " * len(match.group()), before + sentence)[1:]
