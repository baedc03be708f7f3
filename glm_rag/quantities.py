"""Numbers with their units, so that `26 weeks` never supports `16 weeks` or `26 days`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from glm_rag.text import fold

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = {
    word: 10 * value
    for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_WORDS = {word: value for value, word in enumerate(_ONES)} | _TENS
_DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10_000, "亿": 100_000_000}

_ONE_DIGIT = frozenset(map(str, range(10)))

_ENGLISH_UNITS = (
    "second|minute|hour|day|week|month|quarter|year|decade|century|percent|per cent|euro|dollar|"
    "pound|yuan|cent|kilometre|kilometer|metre|meter|km|cm|mm|kg|gram|litre|liter|mile|foot|feet|"
    "inch|degree|time|page|floor|people|person|employee|million|billion|thousand|hundred"
)
_CHINESE_UNITS = (
    "秒|分钟|小时|天|日|周|个?星期|个?月|季度|年|岁|世纪|元|块|欧元|美元|公里|千米|厘米|毫米|米|公斤|"
    "千克|克|升|度|次|页|层|楼|人|名|位|倍|吨|亩|条|项|号|点"
)
_WORD_NUMBER = "|".join(
    [rf"(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_ONES[1:10])}))?", *reversed(_ONES)]
)
_QUANTITY = re.compile(
    rf"(?P<digits>\d+(?:,\d{{3}})*(?:\.\d+)?)|\b(?P<words>{_WORD_NUMBER})\b"
    rf"|(?!十[分足全]|万一)(?P<chinese>[{''.join(_DIGITS)}{''.join(_SCALES)}]+)"
)
_UNIT = re.compile(
    rf"\s*(?P<chinese>%|{_CHINESE_UNITS})"
    rf"|[\s-]*(?:[a-z]+[\s-]+)?(?P<english>{_ENGLISH_UNITS})s?\b"
)
_CANONICAL_UNIT = {"per cent": "%", "percent": "%", "星期": "周", "个星期": "周", "个月": "月"}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number in canonical digits and its unit (singular), empty where there is none.

    `certain` is False for a lone number word that may be something else (one of them, 一样).
    `start`, `end` are characters of the folded text.
    """

    number: str
    unit: str
    certain: bool
    start: int = 0
    end: int = 0


def quantities(text: str) -> Iterator[Quantity]:
    """Every number of a text: digits, English number words up to 99, Chinese numerals."""
    return quantities_in(fold(text))


def quantities_in(folded: str) -> Iterator[Quantity]:
    """As `quantities`, of a text that is folded already: offsets are its own."""
    for found in _QUANTITY.finditer(folded):
        number = _canonical(found)
        if number is None:
            continue
        measured = _UNIT.match(folded, found.end())
        unit = (measured["chinese"] or measured["english"]) if measured else ""
        # A lone 一 or "one" is an article more often than a number.
        written_out = found["digits"] is None
        named = len(found["words"] or found["chinese"] or "") > 1 and number not in _ONE_DIGIT
        certain = not written_out or (bool(unit) and number != "1") or named
        yield Quantity(number, _CANONICAL_UNIT.get(unit, unit), certain, *found.span())


def agree(claim: str, evidence: str) -> bool:
    """Whether every number of `claim`, with its unit if it has one, stands in `evidence`."""
    return not any(strangers(claim, evidence))


def strangers(claim: str, evidence: str) -> Iterator[Quantity]:
    """Numbers of `claim` that do not stand in `evidence`, or not with their unit."""
    stated = list(quantities(evidence))
    numbers = {quantity.number for quantity in stated}
    pairs = {(quantity.number, quantity.unit) for quantity in stated}
    for wanted in quantities(claim):
        known = (wanted.number, wanted.unit) in pairs if wanted.unit else wanted.number in numbers
        if wanted.certain and not known:
            yield wanted


def _canonical(found: re.Match[str]) -> str | None:
    if found["digits"]:
        return _plain(found["digits"].replace(",", ""))
    if found["words"]:
        return str(sum(_WORDS[word] for word in re.split("[ -]", found["words"])))
    value = _chinese_value(found["chinese"])
    return None if value is None else str(value)


def _plain(digits: str) -> str:
    whole, _, fraction = digits.partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def _chinese_value(numeral: str) -> int | None:
    """Value of 二十六, 三百零五, 一万二千, or of digits read one by one (二〇二五)."""
    if not any(char in _SCALES for char in numeral):
        return int("".join(str(_DIGITS[char]) for char in numeral))
    if not any(char in _DIGITS for char in numeral) and numeral[0] != "十":
        return None  # 百 or 万 alone is part of a word
    total = section = digit = 0
    for char in numeral:
        if char in _DIGITS:
            digit = _DIGITS[char]
        elif _SCALES[char] >= _SCALES["万"]:
            total += max(section + digit, 1) * _SCALES[char]
            section = digit = 0
        else:
            section += max(digit, 1) * _SCALES[char]
            digit = 0
    return total + section + digit
