"""Short questions that a passage answers, made by rule from its sentences and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from glm_rag.conversation import leans_on_history
from glm_rag.text import detect_language, query_terms, sentence_spans

MAX_LENGTH = 90
_MIN_ANSWER = 12  # characters that have to follow a question which a document asks itself

# Plain words only: nothing that could be markup, an address, a formula or a trick of direction.
_PLAIN = re.compile(r"[\w ,.;:'’“”\"()/%&+·?–-]+|[\w ，。；：、“”《》（）？！·%,.:/+-]+")
_ASKS = re.compile(
    r"(?:what|how|who|whom|whose|when|where|which|why|can|could|may|must|should|shall|will|do|does|"
    r"did|is|are|was|were|has|have)\b|.*(?:什么|如何|怎|吗|哪|几|谁|多少|多久|多长|是否|能否)",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"^\s*(?:[#*>-]+\s*)?(?:(?:q|question|问|问题)\s*\d{0,3}\s*[:：.、)]\s*|\d{1,3}\s*[.、)]\s*)?",
    re.IGNORECASE,
)
_FIRST_PERSON = re.compile(r"\b(?:we|us|our|you said|sir|dear)\b", re.IGNORECASE)

# Two letters or more, no number, nothing that is a sentence.
_TOPIC_HEADING = re.compile(r"[^\W\d_][^\W\d_ '’/&-]*[^\W\d_](?:[ '’/&-]+[^\W\d_]+)*")
# Headings that say nothing about the matter.
_EMPTY_HEADING = re.compile(
    r"(?:table of )?contents?|introduction|overview|summary|abstract|conclusions?|references|index|"
    r"bibliography|appendix.*|annex.*|notes?|figures?|tables?|preface|foreword|about|general|other|"
    r"miscellaneous|background|(?:chapter|section|part|article|item|page|sheet|book)\b.*|"
    r"(?:frequently asked )?questions?.*|faq.*|license|usage|todo|example|examples|"
    r"目录|前言|序|引言|简介|概述|摘要|总结|结论|结语|引用|附录.*|附则|总则|参考文献|致谢|其他|备注|说明|背景|介绍|"
    r"第.{1,4}[章节条部分].*|常见问题.*",
    re.IGNORECASE,
)
_HEADING_LINE = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
_HEADING_NUMBER = re.compile(
    r"^(?:\d+(?:\.\d+)*[.、)]?\s*|[IVX]+[.)]?\s+|[一二三四五六七八九十]+、\s*)"
)

_SUBJECT = r"(?P<s>(?:The |An? )?[A-Za-z][\w'’-]*(?: [a-z][\w'’-]*| [A-Z][\w'’-]+){0,4}?)"
_NUMBER = (
    r"(?:at most |at least |up to |about |only )?(?:\d[\d,.]*|one|two|three|four|five|six|seven|"
    r"eight|nine|ten|eleven|twelve)"
)
_SPAN = r"[ -](?:working )?(?:minutes?|hours?|days?|weeks?|months?|years?)\b"
_AMOUNT = r"(?: ?%| per ?cent\b| percent\b| (?:euros?|dollars?|pounds?|yuan)\b)"
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
)
_ON = r"on (?:the (?:last|first|\d)|\d|Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_DAY = rf"(?:{_ON}|in (?:\d{{4}}|{_MONTH})\b|at \d{{1,2}}:\d\d)"
_OFTEN = r"(?:every (?:\w+ )?(?:days?|weeks?|months?|years?)|(?:once|twice) an? \w+)\b"
_ENGLISH: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), question)
    for pattern, question in (
        (rf"{_SUBJECT} (?P<v>is|are) {_NUMBER}{_SPAN}", "How long {v} {s}?"),
        (rf"{_SUBJECT} lasts {_NUMBER}{_SPAN}", "How long does {s} last?"),
        (rf"{_SUBJECT} (?P<v>is|are) {_NUMBER}{_AMOUNT}", "How much {v} {s}?"),
        (rf"{_SUBJECT} costs {_NUMBER}", "How much does {s} cost?"),
        (rf"{_SUBJECT} (?P<v>is|are) open (?:from|on|until)", "When {v} {s} open?"),
        (rf"{_SUBJECT} takes place {_OFTEN}", "How often does {s} take place?"),
        (rf"{_SUBJECT} takes place {_DAY}", "When does {s} take place?"),
        (rf"{_SUBJECT} (?P<v>is|are) (?P<p>\w+ed|paid|held|made|sent) {_OFTEN}",
         "How often {v} {s} {p}?"),
        (rf"{_SUBJECT} (?P<v>is|are|was|were) (?P<p>\w+ed|paid|held|made|sent|built|born) {_DAY}",
         "When {v} {s} {p}?"),
        (rf"{_SUBJECT} is {_ON}", "When is {s}?"),
        (rf"{_SUBJECT} (?:is|are) located (?:in|at|on)", "Where is {s} located?"),
        (r"(?P<s>[A-Za-z][\w-]+) is (?:an?|the) (?!same|first|last|only|best|most)[a-z]",
         "What is {s}?"),
    )
)  # fmt: skip
_TOPIC = r"(?P<s>[\u4e00-\u9fff]{2,10})"
_CHINESE_NUMBER = r"(?:约|至多|最多|至少)?(?:\d[\d,.]*|[一二三四五六七八九十百两]+)"
_CHINESE: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), question)
    for pattern, question in (
        (rf"{_TOPIC}[为是]{_CHINESE_NUMBER}(?:周|天|个月|年|小时|分钟|个?工作日)",
         "{s}有多长时间？"),
        (rf"{_TOPIC}[为是](?:每[天月年次])?{_CHINESE_NUMBER}(?:%|元|万元)", "{s}是多少？"),
        (rf"{_TOPIC}[为是]\d{{1,2}}:\d\d", "{s}是什么时候？"),
        (rf"{_TOPIC}(?<![位成])(?:于|在)每?\d*[年月\d][^，。]{{1,14}}?(?P<p>发放|举行|进行|召开|发布|"
         "成立|生效)", "{s}什么时候{p}？"),
        (rf"{_TOPIC}成立于", "{s}是什么时候成立的？"),
        (rf"{_TOPIC}位于", "{s}在哪里？"),
        (rf"{_TOPIC}是(?:一[家种个款项类]|指)", "{s}是什么？"),
    )
)  # fmt: skip
_LEANS = re.compile(
    r"(?:the (?:first|second|last|same|other|following|above|result|reason|former|latter)|it|its|"
    r"he|she|they|this|that|these|those|there|here|such|each|if|when|you|your|we|our|i|my|all|"
    r"some|any|no|not|one|what|as|in|on|at|for|to|by|from|with|after|before|during|and|but|or|so|yet|"
    r"nor|above|below|between|besides|beside|where|who|which|whose|how|why|while|although|unless|"
    r"until|since|because|today|then|now|also|only|even|still|perhaps)\b"
    r"|[它他她这那此该其本我你您]|(?:因此|所以|但|而|同时|此外|例如|如果|每|各|可|须|应|请)",
    re.IGNORECASE,
)


def questions_of(text: str, headings: Sequence[str], title: str = "") -> Iterator[tuple[int, str]]:
    """Questions that a passage answers, each with its rank; 0 is best.

    0: asked in the passage itself, with the answer behind it. 1: a sentence turned around. 2: its
    heading asked for, unless it is the title of all. All are one line of plain words, at most
    `MAX_LENGTH` characters, and can be understood by themselves.
    """
    named = [*headings[-1:], *_HEADING_LINE.findall(text)]
    made = (
        *((0, question) for question in _asked(text)),
        *((1, question) for question in _turned_around(text)),
        *((2, q) for heading in named if heading != title for q in _of_heading(heading)),
    )
    yield from ((rank, question) for rank, question in made if _is_fit(question))


def _is_fit(question: str) -> bool:
    return (
        len(question) <= MAX_LENGTH
        and _PLAIN.fullmatch(question) is not None
        and bool(query_terms(question))
        and not leans_on_history(question)
        and not _FIRST_PERSON.search(question)
    )


def _asked(text: str) -> Iterator[str]:
    """Questions on lines of their own with answers below: marked as such, or several of them.

    A single one without a mark may be talk in a novel.
    """
    lines = text.splitlines()
    found: list[tuple[str, bool]] = []
    for number, line in enumerate(lines):
        label = _LABEL.match(line)
        begin = label.end() if label else 0
        question = line[begin:].strip("* \t")
        below = " ".join(lines[number + 1 : number + 3]).strip()
        is_answered = len(below) >= _MIN_ANSWER and not below.endswith(("?", "？"))
        if question.endswith(("?", "？")) and _ASKS.match(question) and is_answered:
            found.append((question, bool(line[:begin].strip()) or question[0] > "\u3400"))
    yield from (question for question, is_marked in found if is_marked or len(found) > 1)


def _turned_around(text: str) -> Iterator[str]:
    for start, end in sentence_spans(text):
        sentence = " ".join(text[start:end].split())
        language = detect_language(sentence)
        for pattern, question in _CHINESE if language == "zh" else _ENGLISH:
            found = pattern.match(sentence)
            if found is None or _LEANS.match(sentence):
                continue
            parts = found.groupdict()
            if language == "en" and (subject := _in_midst(parts["s"], text)):
                yield question.format(**{**parts, "s": subject})
            elif language == "zh":
                yield question.format(**parts)
            break


def _in_midst(subject: str, text: str) -> str:
    """A sentence's first words as they are written in its midst; empty where that is not known."""
    first, _, rest = subject.partition(" ")
    is_name = first[1:] != first[1:].lower() or (rest and rest[0].isupper())
    if first in {"The", "A", "An"}:
        return f"the {rest}" if rest else ""
    if is_name:
        return subject
    small = first[0].lower() + first[1:]
    if re.search(rf"\b{re.escape(small)}\b", text):
        return f"{small} {rest}".strip()
    if re.search(rf"[a-z,] {re.escape(first)}\b", text):
        return subject
    return f"{small} {rest}" if rest else ""


def _of_heading(heading: str) -> Iterator[str]:
    heading = _HEADING_NUMBER.sub("", heading).strip(" :：.。*#\t")
    if _EMPTY_HEADING.fullmatch(heading) or not _TOPIC_HEADING.fullmatch(heading):
        return
    if detect_language(heading) == "zh":
        if heading.startswith(("如何", "怎么", "怎样")):
            yield f"{heading}？"
        elif len(heading) <= 14:
            yield f"关于{heading}，我需要了解什么？"
        return
    if heading.lower().startswith("how to "):
        yield f"How do I {heading[7:]}?"
        return
    words = (heading.lower() if heading.isupper() and " " in heading else heading).split()
    if not query_terms(words[0]):
        return  # "On Windows" is no topic
    is_small = len(words) <= 6 and not any(word[0].isupper() for word in words[1:])
    if is_small and words[0][1:].islower():
        words[0] = words[0].lower()
    if len(words) <= 6 and not _ASKS.match(heading):
        yield f"What should I know about {' '.join(words)}?"
