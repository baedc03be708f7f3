"""Which words of which passage support each sentence of an answer.

Found after generation by comparing texts: the model's own claims about its sources are used to
break ties and never believed. A sentence is supported verbatim (a long run of its words stands
in the source) or as a paraphrase (the source holds most of its informative terms); numbers,
units and negation must agree. What is not supported gets no citation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from glm_rag.comparison import Text, Window, longest_run, prepare, stems, windows_of
from glm_rag.quantities import agree
from glm_rag.text import detect_language, query_terms, sentence_spans
from glm_rag.types import Citation, Language, Passage

# A verbatim run needs this weight (an English word weighs 1, a CJK character a half) and this
# share of its sentence; a sentence that stands in the source as a whole needs neither.
_MIN_RUN_WEIGHT = 5.0
_MIN_RUN_SHARE = 0.6
# Share of the informative terms that a paraphrase must cover: of all (measured on XQuAD: no
# sentence of another paragraph is cited, nine in ten garbled ones are), and of those that the
# question did not already hold. Chinese bigrams across word borders change with word order.
_MIN_COVERAGE: dict[Language, float] = {"en": 0.6, "zh": 0.5}
_MIN_NEW_COVERAGE = 0.5
_MIN_TERMS = 3
# A sentence with fewer informative terms says too little by itself: it has to add to the
# question, and its source has to share a word with the question. One that stands in the source
# as a whole says enough from this weight on, whatever was asked.
_SHORT_ANSWER = 4
_MIN_WHOLE_WEIGHT = 4.0

_MARK = re.compile(r"\[(\d{1,3}(?:\s*[,，、]\s*\d{1,3})*)\]")
_BULLET = re.compile(r"\s*(?:\d{1,2}[.)、]\s+|[-*+•]\s+)")
# What sentence splitting leaves of "3. Call the help desk" when the item is on its own.
_LIST_NUMBER = re.compile(r"\d{1,2}[.)、]")
# Words that say nothing about the matter: "The answer is: 26 weeks" claims "26 weeks".
_LEAD_IN = re.compile(
    r"^\s*(?:(?:so|yes|no),?\s+)?(?:"
    r"(?:the\s+)?(?:correct\s+)?answer(?:\s+to\s+(?:the|this|your)\s+question)?\s+is\s*(?:that\b)?:?"
    r"|(?:according\s+to|based\s+on)\s+(?:the|these|this)\s+[\w ]{1,40},"
    r"|the\s+(?:passages?|documents?|text)\s+(?:states?|says?|mentions?)\s+that\b"
    r"|(?:根据|依据|按照)[^，。]{1,20}，|答案(?:是|为)?[:：]?|(?:资料|文档|文中)(?:中)?(?:提到|指出|说)[，：:]?"
    r")\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Support:
    window: Window
    verbatim: bool
    strength: tuple[float, ...]


def align(answer: str, passages: Sequence[Passage], *, question: str = "") -> tuple[Citation, ...]:
    """Cite each sentence of `answer` that a passage supports, by its best support.

    Args:
        answer: generated text; marks like `[1]` in it are hints only.
        passages: what the model read. `quote` is always
            `document.page_content[start - offset : end - offset]`, where `offset` is the
            document's `start` in its metadata (0 where it has none).
        question: lets short answers be told apart.
    """
    aligner = Aligner(passages, question=question)
    spans = sentence_spans(answer)
    found = (aligner.cite(answer, span, alone=len(spans) == 1) for span in spans)
    return tuple(citation for citation in found if citation is not None)


class Aligner:
    """Passages prepared once, to cite sentence after sentence; arguments as of `align`."""

    def __init__(self, passages: Sequence[Passage], *, question: str = "") -> None:
        self._asked = stems(query_terms(question))
        self._windows = [window for p in passages for window in windows_of(p, self._asked)]

    def cite(self, answer: str, span: tuple[int, int], *, alone: bool) -> Citation | None:
        """The best support of the sentence at `span`; `alone`: it is the whole answer."""
        start, end = span
        if answer[end - 1] in "?？":
            return None  # a question claims nothing
        if not alone and _LIST_NUMBER.fullmatch(answer, start, end):
            return None
        claim, hints = _claim(answer[start:end])
        found = _best_support(claim, self._windows, self._asked, hints)
        return None if found is None else _citation(found, start, end)


def _claim(sentence: str) -> tuple[Text, frozenset[int]]:
    hints = {int(n) for mark in _MARK.finditer(sentence) for n in re.findall(r"\d+", mark[1])}
    bare = _BULLET.sub("", _MARK.sub(" ", sentence), count=1)
    return prepare(_LEAD_IN.sub("", bare)), frozenset(hints)


# ---------------------------------------------------------------- support


def _best_support(
    claim: Text, windows: Sequence[Window], asked: set[str], hints: frozenset[int]
) -> _Support | None:
    supports = [
        support
        for window in windows
        if (support := _support(claim, window, asked, hints)) is not None
    ]
    if not supports:
        return None
    best = max(supports, key=lambda support: support.strength)
    return replace(best, window=_without_headings(claim, best.window))


def _without_headings(claim: Text, window: Window) -> Window:
    """The window without leading lines that the claim does not need (headings, labels)."""
    first_line, newline, _ = window.content.text.partition("\n")
    if not newline:
        return window
    skipped = len(first_line) + 1
    skipped += len(window.content.text[skipped:]) - len(window.content.text[skipped:].lstrip())
    rest = prepare(window.content.text[skipped:])
    needed = claim.terms & window.content.terms <= rest.terms and agree(claim.text, rest.text)
    runs = longest_run(claim.words, window.content.words), longest_run(claim.words, rest.words)
    if not needed or runs[0] != runs[1]:
        return window
    return _without_headings(claim, replace(window, start=window.start + skipped, content=rest))


def _support(
    claim: Text, window: Window, asked: set[str], hints: frozenset[int]
) -> _Support | None:
    common = claim.terms & window.content.terms
    if not common or not agree(claim.text, window.content.text):
        return None
    if not claim.names <= window.known:
        return None
    run_weight, run_share = longest_run(claim.words, window.content.words)
    whole = run_share == 1.0
    is_short = len(claim.terms) < _SHORT_ANSWER and not (whole and run_weight >= _MIN_WHOLE_WEIGHT)
    if is_short and asked and not _to_the_point(claim, window, asked):
        return None
    if not whole and claim.num_negations != window.content.num_negations:
        return None
    covered = claim.terms & (window.content.terms | window.heading)
    coverage = len(covered) / len(claim.terms)
    verbatim = whole or (run_weight >= _MIN_RUN_WEIGHT and run_share >= _MIN_RUN_SHARE)
    if not verbatim and not _paraphrases(claim, common, covered, asked):
        return None
    strength = (
        round(run_share + coverage, 6),
        -window.num_sentences,
        window.shared_with_question,
        window.passage.index in hints,
        -window.passage.index,
        -window.start,
    )
    return _Support(window, verbatim, strength)


def _to_the_point(claim: Text, window: Window, asked: set[str]) -> bool:
    """Whether a short claim adds to the question, from a source that is about the question."""
    return window.shared_with_question > 0 and not claim.terms <= asked


def _paraphrases(
    claim: Text, common: frozenset[str], covered: frozenset[str], asked: set[str]
) -> bool:
    """Enough of the claim stands in the window or its heading; what is new, in the window."""
    wanted = _MIN_COVERAGE[detect_language(claim.text)] * len(claim.terms)
    if len(covered) < max(_MIN_TERMS, wanted):
        return False
    new = claim.terms - asked
    return not new or len(common & new) >= _MIN_NEW_COVERAGE * len(new)


# ---------------------------------------------------------------- citations


def _citation(support: _Support, answer_start: int, answer_end: int) -> Citation:
    window = support.window
    document = window.passage.document
    metadata = document.metadata
    offset = _offset(metadata)
    start, end = offset + window.start, offset + window.end
    part = _part(metadata, start)
    return Citation(
        index=window.passage.index,
        answer_start=answer_start,
        answer_end=answer_end,
        chunk_id=str(part.get("id", document.id) or ""),
        source=str(metadata.get("source") or ""),
        title=str(metadata.get("title") or ""),
        page=part.get("page", metadata.get("page")),
        start=start,
        end=end,
        quote=window.content.text,
        support="verbatim" if support.verbatim else "paraphrase",
    )


def _offset(metadata: dict[str, Any]) -> int:
    start = metadata.get("start", metadata.get("start_index"))
    return start if isinstance(start, int) else 0


def _part(metadata: dict[str, Any], start: int) -> dict[str, Any]:
    """The chunk of a merged passage that holds the beginning of a quote."""
    parts: list[dict[str, Any]] = metadata.get("parts") or []
    return next((part for part in parts if part["start"] <= start < part["end"]), {})
