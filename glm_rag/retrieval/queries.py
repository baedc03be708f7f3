"""What is searched for: the question, and the sentences of one that asks several things, too.

The vector of a long text is near to nothing in particular, and its many words dilute each other.
Its sentences ask for one thing each.
"""

from __future__ import annotations

import re

from glm_rag.retrieval.calibration import is_small_talk
from glm_rag.text import detect_language, query_terms, sentence_spans
from glm_rag.types import Language

# Terms from which a question is long: English words, Chinese bigrams. The longest of XQuAD's 1,190
# questions has 13 and 33, and asks one thing.
_LONG: dict[Language, int] = {"en": 24, "zh": 48}
# A sentence of fewer terms says too little alone and goes with the one before it.
_MIN_TERMS = 3
# Each part costs an embedding and a search.
_MAX_PARTS = 8

_CLAUSE_END = re.compile(r"[,;:，；：、]\s*|\s[–—]\s|\n+")
_ASKS = re.compile(r"[?？]")


def queries_of(question: str) -> list[str]:
    """The question first; behind it the parts of one that is long or asks several things.

    Parts are sentences, or clauses where one sentence is as long as that. Greetings and repeated
    parts are left out. Of more than eight those that ask come first, then the longest.
    """
    sentences = [question[start:end] for start, end in sentence_spans(question)]
    if not _is_long(question):
        parts = _joined(sentences)
        several = sum(1 for part in parts if _ASKS.search(part)) > 1
        # Lines are of one matter: a follow-up is searched behind the question it leans on.
        return [question, *dict.fromkeys(parts)] if several and "\n" not in question else [question]
    pieces = [piece for sentence in sentences for piece in _clauses(sentence)]
    parts = [part for part in dict.fromkeys(_joined(pieces)) if part != question.strip()]
    worth = sorted(parts, key=lambda p: (not _ASKS.search(p), -len(query_terms(p))))
    chosen = set(worth[:_MAX_PARTS])
    return [question, *(part for part in parts if part in chosen)]


def _is_long(text: str) -> bool:
    return len(query_terms(text)) > _LONG[detect_language(text)]


def _clauses(sentence: str) -> list[str]:
    if not _is_long(sentence):
        return [sentence]
    return [clause.strip() for clause in _CLAUSE_END.split(sentence) if clause.strip()]


def _joined(pieces: list[str]) -> list[str]:
    """Pieces with a few words more where they have too few; small talk is left out."""
    parts: list[str] = []
    for piece in pieces:
        num_terms = len(query_terms(piece))
        if not num_terms or is_small_talk(piece):
            continue
        if parts and min(num_terms, len(query_terms(parts[-1]))) < _MIN_TERMS:
            parts[-1] = f"{parts[-1]} {piece}"
        else:
            parts.append(piece)
    return parts
