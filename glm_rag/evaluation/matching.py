"""Which passages are right for a question: by text, by document, or by the answer they hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from urllib.parse import unquote

from glm_rag.evaluation.answer_metrics import contains
from glm_rag.evaluation.datasets import Question
from glm_rag.text import detect_language, fold
from glm_rag.types import DocumentInfo, Language

# So many letters in a row make two texts the same: about eight words, or a Chinese clause.
_RUN: dict[Language, int] = {"en": 40, "zh": 12}


@lru_cache(maxsize=4096)  # the same passages come back question after question
def letters(text: str) -> str:
    """Letters and digits alone, folded: line breaks and punctuation differ between parsers."""
    return "".join(char for char in fold(text) if char.isalnum())


class Paragraph:
    """A text that other texts may overlap with."""

    def __init__(self, text: str) -> None:
        self.letters = letters(text)
        self.run = min(_RUN[detect_language(text)], len(self.letters))

    @cached_property
    def grams(self) -> frozenset[str]:
        """Every run of its letters that is long enough to tell."""
        starts = range(len(self.letters) - self.run + 1)
        return frozenset(self.letters[i : i + self.run] for i in starts)

    def overlaps(self, passage: str) -> bool:
        """Whether a passage has a run of letters in common; a short one, all of its letters."""
        other = letters(passage)
        if not other or not self.run:
            return False
        if len(other) <= self.run:
            return other in self.letters
        starts = range(len(other) - self.run + 1)
        return any(other[i : i + self.run] in self.grams for i in starts)

    def stands_in(self, whole: str) -> bool:
        """Whether a run from its beginning, middle or end stands in the letters of a document."""
        last = len(self.letters) - self.run
        return self.run > 0 and any(
            self.letters[i : i + self.run] in whole for i in (0, last // 2, last)
        )


@dataclass(frozen=True, slots=True)
class Gold:
    """What counts as right for one question.

    Attributes:
        paragraph: the text that answers; None where only source or answer is known.
        group: paragraphs of the same article, this one included.
        sources: the documents that were named.
        answers: decide where nothing else is known.
        present: whether the knowledge base holds what answers, as far as can be told.
    """

    paragraph: Paragraph | None
    group: tuple[Paragraph, ...]
    sources: frozenset[str]
    answers: tuple[str, ...]
    present: bool

    def is_right(self, passage: str, source: str) -> bool:
        """Whether a passage overlaps the paragraph, or comes from the document."""
        if self.paragraph is not None:
            return self.paragraph.overlaps(passage)
        if self.sources:
            return source in self.sources
        return bool(contains(passage, self.answers))

    def is_near(self, passage: str, source: str) -> bool:
        """Whether a passage is of the same article or document."""
        return source in self.sources or any(item.overlaps(passage) for item in self.group)


def find_gold(
    questions: Sequence[Question],
    documents: Sequence[DocumentInfo],
    texts: Iterable[str],
) -> list[Gold]:
    """What is right for each question in a knowledge base.

    Args:
        documents: of the knowledge base. texts: the text of each, read only as far as needed.
    """
    paragraphs = {q.paragraph: Paragraph(q.paragraph) for q in questions if q.paragraph}
    groups: dict[str, dict[str, Paragraph]] = {}
    for question in questions:
        if question.paragraph:
            member = paragraphs[question.paragraph]
            groups.setdefault(question.group, {})[question.paragraph] = member
    named = {q.source: _sources(q.source, documents) for q in questions if q.source}
    absent = _absent([paragraphs[q.paragraph] for q in questions if q.paragraph], texts)
    return [_gold(question, paragraphs, groups, named, absent) for question in questions]


def _gold(
    question: Question,
    paragraphs: dict[str, Paragraph],
    groups: dict[str, dict[str, Paragraph]],
    named: dict[str, frozenset[str]],
    absent: Collection[Paragraph],
) -> Gold:
    paragraph = paragraphs.get(question.paragraph)
    sources = named.get(question.source, frozenset())
    if paragraph is not None:
        present = paragraph not in absent
    else:
        present = bool(sources) or not question.source
    return Gold(
        paragraph=paragraph,
        group=tuple(groups.get(question.group, {}).values()),
        sources=sources,
        answers=question.answers,
        present=question.answerable and present,
    )


def _absent(paragraphs: Iterable[Paragraph], texts: Iterable[str]) -> set[Paragraph]:
    missing = set(paragraphs)
    for text in texts:
        if not missing:
            break
        whole = letters(text)
        missing = {paragraph for paragraph in missing if not paragraph.stands_in(whole)}
    return missing


def _sources(name: str, documents: Sequence[DocumentInfo]) -> frozenset[str]:
    """Documents of that source, title or path; a file's name or the end of its path is enough."""
    wanted = name.casefold()
    return frozenset(
        document.source
        for document in documents
        if wanted == document.title.casefold()
        or any(_is_named(wanted, source) for source in (document.source, *document.copies))
    )


def _is_named(wanted: str, source: str) -> bool:
    path = unquote(source).casefold()
    given = PurePosixPath(wanted.replace("\\", "/")).as_posix()
    return wanted in {source.casefold(), path} or path.endswith("/" + given)
