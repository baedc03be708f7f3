"""Whether there is evidence to answer, and what is said when there is none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from glm_rag.text import fold, sentence_spans
from glm_rag.types import ChatTurn, Language

if TYPE_CHECKING:
    from langchain_core.documents import Document

# What the model is told to say when the passages do not help; recognised by `is_refusal`.
REFUSAL_SENTENCE: dict[Language, str] = {
    "en": "The passages do not answer this question.",
    "zh": "资料中没有这个问题的答案。",
}

_NOTHING_FOUND: dict[Language, str] = {
    "en": "I found nothing about this in the documents.",
    "zh": "在文档中没有找到相关内容。",
}
_TOO_LITTLE: dict[Language, str] = {
    "en": "The documents do not hold enough evidence to answer this. The nearest passages are in ",
    "zh": "文档中没有足够的依据回答这个问题。最接近的内容见：",
}
_NUM_NAMED = 3
_FIRST_SENTENCE = re.compile(r"[.。]")

_OTHER_REFUSAL = re.compile(
    r"(?:the|these|this)\s+(?:provided\s+)?(?:passages?|documents?|text)\s+(?:does|do)(?:\s+not|n['’]t)\s+"
    r"(?:\w+\s+)?(?:answer|contain|mention|provide|specify|include|say|state)\b"
    r"|(?:提供的|上述|以上|这些)?(?:资料|文档|文中|内容)(?:中|里)?(?:并)?(?:没有|未|无)"
    r"|(?:根据|从)[^，。]{1,12}，?(?:无法|不能)(?:回答|得知|确定)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether to answer; `reason` says why not, in one line, and is empty otherwise."""

    answerable: bool
    reason: str = ""


def judge(
    documents: Sequence[Document], *, abstain: bool = True, threshold: float = 0.0
) -> Judgement:
    """Decide from retrieval alone, before the model is asked.

    The best passage decides, by the `evidence` margin in its metadata.
    Documents of a retriever that measures no evidence always count as enough.

    Args:
        documents: retrieved chunks, best first.
        abstain: False answers from whatever was found.
        threshold: evidence that is enough, in logits; 0 is where the calibration puts it.
    """
    if not documents:
        return Judgement(answerable=False, reason="no passage was found")
    evidence = documents[0].metadata.get("evidence")
    if not abstain or evidence is None or evidence >= threshold:
        return Judgement(answerable=True)
    return Judgement(
        answerable=False,
        reason=f"the best passage is too weak as evidence "
        f"({evidence:.2f}; {threshold:g} is enough)",
    )


def refusal(language: Language, nearest: Sequence[Document]) -> str:
    """The answer without evidence: says so and names where the nearest passages are."""
    if not nearest:
        return _NOTHING_FOUND[language]
    best: dict[str, str] = {}  # of each document its best passage
    for document in nearest:
        best.setdefault(_title(document), _where(document, language))
    names = list(best.values())[:_NUM_NAMED]
    if language == "zh":
        return _TOO_LITTLE["zh"] + "、".join(names) + "。"
    return _TOO_LITTLE["en"] + ", ".join(names) + "."


def is_refusal(text: str) -> bool:
    """Whether an answer begins like one of our refusals, or is nothing but one in other words."""
    said = _letters(text)
    if any(said.startswith(beginning) for beginning in _beginnings()):
        return True
    return len(sentence_spans(text)) == 1 and _OTHER_REFUSAL.match(text.strip()) is not None


def may_become_refusal(text: str) -> bool:
    """Whether an answer of several sentences that begins so may be, or become, a refusal."""
    said = _letters(text)
    return any(b.startswith(said) or said.startswith(b) for b in _beginnings())


@cache
def _beginnings() -> tuple[str, ...]:
    texts = (*REFUSAL_SENTENCE.values(), *_NOTHING_FOUND.values(), *_TOO_LITTLE.values())
    return tuple(_letters(_FIRST_SENTENCE.split(text)[0]) for text in texts)


def answered_turns(turns: Sequence[ChatTurn]) -> list[ChatTurn]:
    """A conversation without the questions that were declined.

    A model that reads its own refusals repeats them, and invents the documents they name.
    """
    kept: list[ChatTurn] = []
    for turn in turns:
        if turn.role != "assistant" or not is_refusal(turn.text):
            kept.append(turn)
        elif kept and kept[-1].role == "user":
            kept.pop()
    return kept


def _title(document: Document) -> str:
    metadata = document.metadata
    return " ".join(str(metadata.get("title") or metadata.get("source") or "?").split())


def _where(document: Document, language: Language) -> str:
    title = _title(document)
    page = document.metadata.get("page")
    if language == "zh":
        return f"《{title}》" + (f"第 {page} 页" if page else "")
    return f"“{title}”" + (f" (page {page})" if page else "")


def _letters(text: str) -> str:
    return "".join(char for char in fold(text) if char.isalnum())
