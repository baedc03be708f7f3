"""The local model's own opinion: how likely is this question after this passage?

Sachan et al., Improving Passage Retrieval with Zero-Shot Question Generation (arXiv 2204.07496):
mean log-probability of the question's tokens. The passage stands where the answer's prompt has
it, so what was computed here is not computed again for the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from glm_rag.text import detect_language
from glm_rag.types import Language

if TYPE_CHECKING:
    from langchain_core.documents import Document

# Two questions that differ from every question, and each other, at the first or the last token.
_OTHERS = ("How?", "谁。")


class Scorer(Protocol):
    """What of an `Engine` is used here."""

    def score(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> float:
        """Mean log-probability of the continuation."""


class LikelihoodReranker:
    """Scores passages by the language model that will answer.

    Args:
        open_engine: gives the engine; called on first use.
        prompt: ids of the whole prompt for a question that is answered from one passage, in a
            language.
    """

    def __init__(
        self,
        open_engine: Callable[[], Scorer],
        prompt: Callable[[str, Document, Language], Sequence[int]],
    ) -> None:
        self._open_engine = open_engine
        self._prompt = prompt

    def scores(self, question: str, documents: Sequence[Document]) -> list[float]:
        """Mean log-probability of the question, one for each passage.

        Raises:
            ContextWindowError: a passage and the question do not fit into the window.
        """
        return [self._score(question, document) for document in documents]

    def _score(self, question: str, document: Document) -> float:
        language = detect_language(question)
        ids = self._prompt(question, document, language)
        others = [self._prompt(other, document, language) for other in _OTHERS]
        start = min(_common(ids, other) for other in others)
        end = len(ids) - min(_common(ids[start:][::-1], other[::-1]) for other in others)
        return self._open_engine().score(ids[:start], ids[start : max(end, start + 1)])


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences begin with in common."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in pairs)
