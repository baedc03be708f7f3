"""How near is an answer to the known ones? Words in English, characters in Chinese.

As the evaluation script of SQuAD (Rajpurkar et al. 2016) for words: case, punctuation and
articles do not count. Han, kana and hangul are compared character by character, as DRCD and
XQuAD do for Chinese.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from glm_rag.text import fold

_CHARACTERS = re.compile(
    r"[\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff]"
)
_ARTICLES = frozenset({"a", "an", "the"})


def answer_tokens(text: str) -> list[str]:
    """What is compared of a text: words, and single characters of scripts without spaces."""
    bare = "".join(c for c in fold(text) if unicodedata.category(c)[0] not in "PS")
    words = _CHARACTERS.sub(lambda found: f" {found[0]} ", bare).split()
    return [word for word in words if word not in _ARTICLES]


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1 if the answer is one of the known ones."""
    return _best(answer, gold, lambda given, known: float(given == known))


def f1(answer: str, gold: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the tokens, with the nearest known answer."""
    return _best(answer, gold, _f1)


def contains(answer: str, gold: Sequence[str]) -> float:
    """1 if a known answer stands in this one, as a run of whole tokens."""
    return _best(answer, gold, _holds)


def _best(
    answer: str, gold: Sequence[str], measure: Callable[[list[str], list[str]], float]
) -> float:
    given = answer_tokens(answer)
    return max((measure(given, answer_tokens(known)) for known in gold), default=0.0)


def _f1(given: list[str], known: list[str]) -> float:
    if not given or not known:
        return float(given == known)
    common = (Counter(given) & Counter(known)).total()
    return 2 * common / (len(given) + len(known))


def _holds(given: list[str], known: list[str]) -> float:
    size = len(known)
    if not size:
        return 0.0
    return float(any(given[i : i + size] == known for i in range(len(given) - size + 1)))
