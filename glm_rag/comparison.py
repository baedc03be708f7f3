"""Texts made comparable: folded words, stemmed terms, names, negations, windows of sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from glm_rag.text import detect_language, fold, sentence_spans, terms
from glm_rag.types import Passage

# Longer "sentences" are tables or lists without full stops: cited line by line.
_LONG_SENTENCE = 400

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"\d+(?:[.,]\d+)*|[{_CJK}]|[^\W_\d{_CJK}]+(?:['’][^\W_\d{_CJK}]+)*")
_HEADING = re.compile(r"#{1,6}\s")
# What stands between the header of a Markdown table and its rows.
_RULE = re.compile(r"\|(?:[ \t]*:?-+:?[ \t]*\|)+")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][^\W_]+")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nor|without|cannot|neither)\b|n['’]t\b"
    r"|不(?![仅但同断少])|没有|没|并非|从未|未(?![来])|无(?![论])|禁止"
)


@dataclass(frozen=True, slots=True)
class Text:
    """A stretch of text prepared for comparison."""

    text: str
    words: tuple[str, ...]
    terms: frozenset[str]
    names: frozenset[str]
    num_negations: int


@dataclass(frozen=True, slots=True)
class Window:
    """One or two neighbouring sentences of a passage; offsets are within the passage's text.

    `heading` holds the terms of the heading above it, `known` those of the whole passage, its
    title and the question.
    """

    passage: Passage
    start: int
    end: int
    content: Text
    num_sentences: int
    shared_with_question: float
    heading: frozenset[str]
    known: frozenset[str]


def prepare(text: str) -> Text:
    """Fold, cut into words, find terms."""
    return Text(
        text=text,
        words=tuple(fold(token) for token in _TOKEN.findall(text)),
        terms=frozenset(stems(terms(text))),
        names=frozenset(stems(terms(" ".join(_NAME.findall(text))))),
        num_negations=len(_NEGATION.findall(fold(text))),
    )


# ---------------------------------------------------------------- windows


def windows_of(passage: Passage, asked: set[str]) -> Iterator[Window]:
    """Every sentence of a passage and every pair; `asked` holds the question's terms."""
    about = stems(terms(_heading_text(passage)))
    known = frozenset(asked | about | stems(terms(passage.text)))
    for heading, spans in _sections(passage.text, passage.table_header):
        for size in (1, 2):
            for first, last in zip(spans, spans[size - 1 :], strict=False):
                content = prepare(passage.text[first[0] : last[1]])
                shared = len(asked & (content.terms | heading)) or len(asked & about) / 2
                yield Window(passage, first[0], last[1], content, size, shared, heading, known)


def _sections(
    text: str, table_header: str
) -> Iterator[tuple[frozenset[str], list[tuple[int, int]]]]:
    """Terms of each heading with the sentences below it; headings are not sentences.

    The header of a table is a heading of its rows too.
    """
    heading, table = _stemmed(""), _stemmed(table_header)
    spans: list[tuple[int, int]] = []
    before = 0
    for start, end in _pieces(text):
        is_heading, is_rule = _HEADING.match(text, start), _RULE.fullmatch(text, start, end)
        if is_heading or is_rule or (table and "\n\n" in text[before:start]):
            yield heading | table, spans
            table = _stemmed(text[slice(*spans[-1])]) if is_rule and spans else _stemmed("")
            spans = []
        if is_heading:
            heading = _stemmed(text[start:end])
        elif not is_rule:
            spans.append((start, end))
        before = end
    yield heading | table, spans


def _stemmed(text: str) -> frozenset[str]:
    return frozenset(stems(terms(text)))


def _heading_text(passage: Passage) -> str:
    metadata = passage.document.metadata
    headings = map(str, metadata.get("headings") or ())
    return " ".join([str(metadata.get("title") or ""), *headings, passage.table_header])


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    for start, end in sentence_spans(text):
        if end - start <= _LONG_SENTENCE:
            yield start, end
            continue
        for line in re.finditer(r"\S[^\n]*", text[start:end]):
            yield start + line.start(), start + line.start() + len(line.group().rstrip())


# ---------------------------------------------------------------- words


def longest_run(claim: Sequence[str], source: Sequence[str]) -> tuple[float, float]:
    """Weight of the longest common run of words, and its share of the claim's weight."""
    total = sum(map(_weight, claim))
    if not total:
        return 0.0, 0.0
    matcher = SequenceMatcher(None, claim, source, autojunk=False)
    match = matcher.find_longest_match()
    weight = sum(map(_weight, claim[match.a : match.a + match.size]))
    return weight, weight / total


def _weight(word: str) -> float:
    return 0.5 if len(word) == 1 and detect_language(word) == "zh" else 1.0


def stems(words: Sequence[str]) -> set[str]:
    """Distinct stems of words or terms."""
    return {_stem(word) for word in words}


def _stem(word: str) -> str:
    """English plural, -ed and -ing cut off; crude, but both sides are cut alike."""
    if not word.isascii() or len(word) < 4:
        return word
    for ending, rest in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            return word[: -len(ending)] + rest
    return word.removesuffix("e")
