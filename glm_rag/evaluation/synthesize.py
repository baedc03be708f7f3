"""Questions out of a knowledge base's own sentences, by rule or by a model.

A sentence with a number, a date or a name becomes a question by asking for it in its place:
"Parental leave is how many weeks?", "育儿假为多少周？". Such questions share their words with their
source, so any retriever finds them: they compare settings and say nothing about real questions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from glm_rag.evaluation.answer_metrics import contains
from glm_rag.evaluation.datasets import Question
from glm_rag.text import detect_language, sentence_spans, terms
from glm_rag.types import Language

# Letters of a sentence that says something by itself and is still one sentence.
_LENGTHS: dict[Language, tuple[int, int]] = {"en": (40, 240), "zh": (12, 80)}
# Terms that are left to find it by.
_MIN_TERMS: dict[Language, int] = {"en": 4, "zh": 5}

# What leans on the sentence before it, or is no sentence.
_LEANS = re.compile(
    r"(?:it|its|he|she|his|her|they|their|this|that|these|those|such|here|there|then|thus|but|and|"
    r"or|so|however|also|in addition|for example)\b|[它他她这那此该其]|"
    r"因此|所以|但是?|而且|同时|此外|例如|[#|>*+\-•]",
    re.IGNORECASE,
)

_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
# What is asked for, and the words that ask in its place. The first group is the answer. A number
# is asked for before a noun only, a name after a word that it completes.
_ENGLISH: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"\b(?:[Oo]n )?((?:\d{{1,2}} (?:{_MONTH})|(?:{_MONTH}) \d{{1,2}},?)"
                r"(?: \d{4})?)\b"),
     "on what date"),
    (re.compile(r"\b[Ii]n ((?:1[0-9]|20)\d\d)\b"), "in which year"),
    (re.compile(r"(?<![\w.,-])(\d+(?:[.,]\d+)*) ?(?:%|per ?cent\b)"), "what percentage"),
    (re.compile(r"(?<![\w.,:)$€£–-])(?!(?:1[0-9]|20)\d\d )(\d+(?:,\d{3})*)(?= (?!and|or|to|that|"
                r"than|with|from|left|per|in|on|at|for|by|was|were|is|are|as|of|the)[a-z]{3,})"),
     "how many"),
    (re.compile(r"(?:(?<= by )|(?<= was )|(?<= is )|(?<= as )|(?<= of )|(?<= called )|(?<= named ))"
                r"((?:[A-Z][\w'’-]+ ){1,3}[A-Z][\w'’-]+)(?=[ ,.;])"), "what or whom"),
)  # fmt: skip
_CHINESE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(\d{4}年\d{1,2}月\d{1,2}日)"), "哪一天"),
    (re.compile(r"((?:1[0-9]|20)\d\d)年(?!\d)"), "哪一年"),
    (re.compile(r"(?<![\d.,])(\d+(?:\.\d+)?)\s?[%％]"), "百分之多少"),
    (re.compile(r"(?<![\d.,第每这那几数前后述年月二三四五六七八九十百千两])"
                r"(\d+(?:,\d{3})*|[二三四五六七八九十百千两]+)"
                r"(?=个?工作日|个月|天|周|小时|分钟|元|万元|公里|米|人|名|次|岁|页|台|家|种|项)"),
     "多少"),
    (re.compile(r"《([^《》]{2,20})》"), "什么"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fact:
    """A sentence, what is asked for in it, and the question that asks by rule."""

    sentence: str
    answer: str
    question: str
    source: str

    def as_question(self, text: str) -> Question:
        """A row of a data set, with other words if wanted."""
        return Question(
            id="",
            text=text,
            answers=(self.answer,),
            paragraph=self.sentence,
            source=self.source,
            group=self.source,
        )


def synthesize(
    texts: Sequence[tuple[str, str]],
    count: int,
    *,
    seed: int = 0,
    rewrite: Callable[[Fact], str] | None = None,
) -> Iterator[Question]:
    """At most `count` questions, the documents in turn, so that long ones do not crowd it.

    Args:
        texts: source and text of each document.
        rewrite: asks in other words (`model_question`); a question that is none, or gives its
            answer away, is left as the rule made it.
    """
    generator = random.Random(seed)
    queues = [list(_facts(source, text)) for source, text in texts]
    for queue in queues:
        generator.shuffle(queue)
    generator.shuffle(queues)
    asked: set[str] = set()
    while queues and len(asked) < count:
        queues = [queue for queue in queues if queue]
        for queue in queues:
            fact = queue.pop()
            if fact.question in asked or len(asked) >= count:
                continue
            asked.add(fact.question)
            text = fact.question if rewrite is None else rewrite(fact)
            yield fact.as_question(text if _asks(text, fact) else fact.question)


def prompt_for(fact: Fact) -> str:
    """What a language model is told, to ask for a fact in its own words."""
    if detect_language(fact.sentence) == "zh":
        return (
            f"根据下面的句子提一个问题，答案是“{fact.answer}”。只写问题，不要写答案。\n\n"
            f"句子：{fact.sentence}\n\n问题："
        )
    return (
        f'Write one question about the sentence below whose answer is "{fact.answer}". Write the '
        f"question only, without the answer.\n\nSentence: {fact.sentence}\n\nQuestion:"
    )


def first_question(reply: str) -> str:
    """The first question of a model's reply, without what models put before it; else nothing."""
    for start, end in sentence_spans(reply):
        sentence = re.sub(r"^\W*(?:question|问题)\s*[:：]\s*", "", reply[start:end], flags=re.I)
        if sentence.endswith(("?", "？")):
            return " ".join(sentence.split()).strip('"“”* ')
    return ""


def _asks(text: str, fact: Fact) -> bool:
    is_question = text.endswith(("?", "？")) and len(terms(text)) > 1
    return is_question and not contains(text, [fact.answer])


# ---------------------------------------------------------------- rules


def _facts(source: str, text: str) -> Iterator[Fact]:
    for start, end in sentence_spans(text):
        sentence = " ".join(text[start:end].split())
        language = detect_language(sentence)
        least, most = _LENGTHS[language]
        if not least <= sum(char.isalpha() for char in sentence) <= most:
            continue
        if _LEANS.match(sentence) or sentence[-1] not in ".。!！" or sentence.count("|") > 1:
            continue
        fact = _fact(sentence, source, language)
        if fact is not None:
            yield fact


def _fact(sentence: str, source: str, language: Language) -> Fact | None:
    for pattern, asking in _CHINESE if language == "zh" else _ENGLISH:
        found = pattern.search(sentence)
        # What stands there twice would be given away by the rest.
        if found is None or contains(_without(sentence, found, " "), [found[1]]):
            continue
        question = _without(sentence, found, asking)
        if len(terms(question)) < _MIN_TERMS[language]:
            continue
        body = question.rstrip(".。!！ ")
        ending = "？" if language == "zh" else "?"
        return Fact(sentence, found[1].rstrip(","), body[0].upper() + body[1:] + ending, source)
    return None


def _without(sentence: str, found: re.Match[str], instead: str) -> str:
    return sentence[: found.start()] + instead + sentence[found.end() :]
