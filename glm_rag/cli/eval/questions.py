"""The questions of a file, and what of a knowledge base answers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from glm_rag.evaluation.datasets import Question
    from glm_rag.evaluation.matching import Gold
    from glm_rag.knowledge.base import KnowledgeBase


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """A file, and those of its questions that are asked."""

    path: Path
    questions: Sequence[Question]

    @classmethod
    def read(cls, path: Path, limit: int | None, seed: int | None) -> QuestionFile:
        """The first `limit` questions, or so many drawn by `seed`; all without a limit.

        Raises:
            ConfigError: the file cannot be read, or a row of it is wrong.
        """
        from glm_rag.evaluation.datasets import choose, read_dataset

        return cls(path, choose(read_dataset(path), limit, seed))


def gold_of(questions: Sequence[Question], kb: KnowledgeBase) -> list[Gold]:
    """What answers each question; a note on stderr names those whose passage is not there."""
    from glm_rag.evaluation.matching import find_gold

    documents = kb.documents()
    texts = (kb.get_text(document.source) for document in documents)
    golds = find_gold(questions, documents, texts)
    pairs = zip(questions, golds, strict=True)
    absent = [q.id for q, gold in pairs if q.answerable and not gold.present]
    if absent:
        named = ", ".join(absent[:3]) + (", …" if len(absent) > 3 else "")
        note = (
            f"{len(absent)} of {len(questions)} questions have their passage or source outside "
            f"the knowledge base ({named}); they count as questions to decline"
        )
        Console(stderr=True, highlight=False).print(Text(note, style="yellow"), soft_wrap=True)
    return golds
