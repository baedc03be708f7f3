"""Questions for an empty chat, drawn from what the documents say and proven before they are shown.

Documents take turns, so that four suggestions come from four documents where there are so many.
A question is shown only if the knowledge base finds its own passage for it and the evidence is
enough, as if a user had asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from glm_rag.grounding import judge
from glm_rag.question_rules import questions_of
from glm_rag.text import detect_language
from glm_rag.types import Language

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from glm_rag.knowledge.base import KnowledgeBase

# Passages looked at; of one document at most so many, of all together so many.
_PER_DOCUMENT = 8
_PASSAGES = 96
# Each costs a search: give up when so many times the wanted number were tried.
_TRIES = 2
_NEAREST = 3


def suggest_questions(
    kb: KnowledgeBase, language: Language, count: int = 4, *, seed: int = 0
) -> list[str]:
    """At most `count` questions that documents of the knowledge base answer.

    Args:
        language: of the page. Documents in it come first, then those in the other one; a
            question is in its document's language.
        seed: another one gives other questions.

    Returns:
        One line of plain words each, at most 90 characters; fewer where the documents give no
        more, none for an empty knowledge base.

    Raises:
        KnowledgeBaseError: it is damaged, or was made with another embedder.
    """
    passages = kb.sample_passages(_PASSAGES, per_document=_PER_DOCUMENT, seed=seed)
    tried: dict[str, bool] = {}
    for question, source in _in_turn(passages, language, seed):
        if sum(tried.values()) >= count or len(tried) >= _TRIES * count:
            break
        if question not in tried:
            tried[question] = _is_answered(kb, question, source)
    return [question for question, is_answered in tried.items() if is_answered]


def _in_turn(passages: list[Document], language: Language, seed: int) -> Iterator[tuple[str, str]]:
    """Questions with their sources: the best of each document, then the second best, and so on.

    Within a document kinds of questions are mixed by chance among the equally good ones only.
    """
    draw = random.Random(seed)
    ranked: dict[str, dict[str, tuple[bool, int, float]]] = {}
    for passage in passages:
        metadata = passage.metadata
        own = ranked.setdefault(str(metadata["source"]), {})
        title, headings = str(metadata.get("title") or ""), metadata.get("headings") or ()
        for rank, question in questions_of(passage.page_content, headings, title):
            is_other = detect_language(question) != language
            own.setdefault(question, (is_other, rank, draw.random()))
    queues = [
        (source, sorted(own.items(), key=lambda item: item[1])) for source, own in ranked.items()
    ]
    draw.shuffle(queues)
    rounds = [
        (is_other, place, rank, question, source)
        for source, queue in queues
        for place, (question, (is_other, rank, _)) in enumerate(queue)
    ]
    for *_, question, source in sorted(rounds, key=lambda item: item[:3]):
        yield question, source


def _is_answered(kb: KnowledgeBase, question: str, source: str) -> bool:
    documents = kb.as_retriever().invoke(question)
    nearest = {str(document.metadata.get("source")) for document in documents[:_NEAREST]}
    return source in nearest and judge(documents).answerable
