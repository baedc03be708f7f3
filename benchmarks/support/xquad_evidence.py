"""Evidence for XQuAD questions with the right paragraph there, missing, and in another domain."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from retrieval_xquad import Question, fill, load

from glm_rag.evaluation import datasets
from glm_rag.evaluation.bootstrap import estimate
from glm_rag.evaluation.matching import Gold
from glm_rag.evaluation.measure import Measured, measure_all
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.retrieval.calibration import is_small_talk
from glm_rag.text import query_terms
from support.distractors import TEN_TIMES, distractors
from support.kept_vectors import KeptEmbeddings

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Known(Gold):
    """Right by the name of the paragraph, in any of the languages; near by that of the article."""

    article: tuple[str, ...] = ()

    def is_near(self, passage: str, source: str) -> bool:
        return source.startswith(self.article)


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions of one language to the documents of one or two.

    `absent`: the same questions to documents of another domain, in the same places.
    """

    name: str
    questions: list[Question]
    measured: list[Measured]
    absent: list[Measured]

    @property
    def groups(self) -> list[str]:
        return [item.group for item in self.measured]


def ask(
    data: Path, home: Path, pairs: Sequence[str], embeddings: KeptEmbeddings, *, other: bool = True
) -> list[Asked]:
    """One for each pair such as `en -> zh`; `other`: ask in another domain, too."""
    found = []
    for stored in dict.fromkeys(pair.split(" -> ")[1] for pair in pairs):
        languages = stored.split("+")
        with (
            KnowledgeBase.open(
                stored.replace("+", "-"), home=home, embeddings=embeddings, create=True
            ) as kb,
            KnowledgeBase.open(
                "other-" + stored.replace("+", "-"), home=home, embeddings=embeddings, create=True
            ) as elsewhere,
        ):
            for language in languages:
                fill(kb, language, enumerate(load(data, language)[0]), split=False)
                count = TEN_TIMES[language] if other else 0
                for document, chunks in distractors(data, language, count, embeddings):
                    elsewhere.put_document(document, chunks)
            for pair in pairs:
                asked, _, where = pair.partition(" -> ")
                if where != stored:
                    continue
                questions = [q for q in load(data, asked)[1] if searched(q)]
                found.append(
                    Asked(
                        pair,
                        questions,
                        measure(kb, questions, languages, present=True),
                        measure(elsewhere, questions, languages, present=False) if other else [],
                    )
                )
    return found


def searched(question: Question) -> bool:
    return bool(query_terms(question.text)) and not is_small_talk(question.text)


def measure(
    kb: KnowledgeBase, questions: Sequence[Question], languages: Sequence[str], *, present: bool
) -> list[Measured]:
    asked = [
        datasets.Question(str(n), q.text, group=str(q.article)) for n, q in enumerate(questions)
    ]
    golds = [known(question, languages, present) for question in questions]
    return list(measure_all(asked, golds, kb))


def known(question: Question, languages: Sequence[str], present: bool) -> Known:
    names = frozenset(f"{n}/{question.article}/{question.paragraph}" for n in languages)
    article = tuple(f"{name}/{question.article}/" for name in languages)
    return Known(None, (), names, (), present, article)


def folds(groups: Sequence[str]) -> np.ndarray:
    """The fold of each question; those of one article are in one."""
    names = sorted(set(groups))
    random.Random(0).shuffle(names)
    places = {name: place % FOLDS for place, name in enumerate(names)}
    return np.array([places[group] for group in groups])


def share(true: np.ndarray, groups: Sequence[str]) -> str:
    """Per cent of what is true, with its interval over groups."""
    found = estimate(true.astype(float), np.ones(len(true)), groups)
    if found is None:
        return ""
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
