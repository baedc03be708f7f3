"""The numbers Word shows before headings and list items, which its files do not spell out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_PLACE = re.compile(r"%([1-9])")
_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc")),
    *((50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)
_HAN_DIGITS = "〇一二三四五六七八九"
_HAN_UNITS = ((1000, "千"), (100, "百"), (10, "十"))
_MOST_CIRCLED = 20
_MOST_SHOWN = 9999  # larger ones are written as digits in every format


@dataclass(frozen=True, slots=True)
class _Level:
    format: str
    text: str
    start: int
    style: str
    is_legal: bool  # all numbers in digits, whatever the formats of the levels above


class Numbering:
    """Counts the numbered paragraphs of a document as they come.

    Args:
        root: the `w:numbering` element; `None` for a document without lists.
    """

    def __init__(self, root: Any | None) -> None:
        self._levels: dict[str, dict[int, _Level]] = {}  # by abstract list
        self._abstract: dict[str, str] = {}  # list -> abstract list
        self._restarts: dict[str, dict[int, int]] = {}  # list -> level -> first number
        self._counts: dict[str, dict[int, int]] = {}
        for element in root if root is not None else ():
            if element.tag == f"{_W}abstractNum":
                levels = map(_level, element.findall(f"{_W}lvl"))
                self._levels[_attribute(element, "abstractNumId")] = dict(levels)
            elif element.tag == f"{_W}num":
                self._add_list(element)

    def _add_list(self, element: Any) -> None:
        number = _attribute(element, "numId")
        self._abstract[number] = _value(element.find(f"{_W}abstractNumId"))
        overrides = element.findall(f"{_W}lvlOverride")
        self._restarts[number] = {
            _int(_attribute(override, "ilvl")): _int(_value(start), 1)
            for override in overrides
            if (start := override.find(f"{_W}startOverride")) is not None
        }

    def level_of_style(self, number: str, style: str) -> int:
        """The level of list `number` that paragraphs of `style` have; 0 if none is tied to it."""
        levels = self._levels.get(self._abstract.get(number, ""), {})
        return next((i for i, level in levels.items() if style and level.style == style), 0)

    def label(self, number: str, depth: int) -> str | None:
        """Count one paragraph and say what stands before it.

        `None` where it is in no list, `-` for bullets, empty for a level that shows nothing.
        """
        abstract = self._abstract.get(number, "")
        levels = self._levels.get(abstract, {})
        if depth not in levels:
            return "-" if abstract else None
        counts = self._counts.setdefault(abstract, {})
        restart = self._restarts[number].pop(depth, None)
        if restart is not None:
            counts[depth] = restart
        else:
            counts[depth] = counts.get(depth, levels[depth].start - 1) + 1
        for deeper in [key for key in counts if key > depth]:
            del counts[deeper]
        return _shown(levels, counts, depth)


def _level(element: Any) -> tuple[int, _Level]:
    level = _Level(
        format=_value(element.find(f"{_W}numFmt")) or "decimal",
        text=_value(element.find(f"{_W}lvlText")),
        start=_int(_value(element.find(f"{_W}start")), 1),
        style=_value(element.find(f"{_W}pStyle")),
        is_legal=element.find(f"{_W}isLgl") is not None,
    )
    return _int(_attribute(element, "ilvl")), level


def _shown(levels: Mapping[int, _Level], counts: Mapping[int, int], depth: int) -> str:
    level = levels[depth]
    if level.format == "bullet":
        return "-"
    if level.format == "none":
        return ""

    def number(match: re.Match[str]) -> str:
        index = int(match.group(1)) - 1
        above = levels.get(index, level)
        return format_number(
            counts.get(index, above.start), "decimal" if level.is_legal else above.format
        )

    return _PLACE.sub(number, level.text).strip()


def format_number(number: int, kind: str) -> str:
    """A number in one of Word's formats (ECMA-376, 17.18.59); digits for formats not known."""
    if not 0 < number <= _MOST_SHOWN:
        return str(number)
    if kind.endswith("Letter"):  # a ... z, aa, bb
        letters = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
        shown = letters
    elif kind.endswith("Roman"):
        shown = _roman(number)
    elif "Counting" in kind or kind == "ideographDigital":
        return _han(number)
    elif kind.startswith("decimalEnclosedCircle") and number <= _MOST_CIRCLED:
        return chr(ord("①") + number - 1)
    else:
        return f"{number:02}" if kind == "decimalZero" else str(number)
    return shown.upper() if kind.startswith("upper") else shown


def _roman(number: int) -> str:
    parts = []
    for value, letters in _ROMAN:
        count, number = divmod(number, value)
        parts.append(letters * count)
    return "".join(parts)


def _han(number: int) -> str:
    """Chinese numerals as in 十, 二十一, 一百零三."""
    parts: list[str] = []
    skipped = False
    for value, unit in _HAN_UNITS:
        digit, number = divmod(number, value)
        if digit:
            parts.append(("零" if skipped else "") + _HAN_DIGITS[digit] + unit)
        skipped = bool(parts) and not digit
    if number:
        parts.append(("零" if skipped else "") + _HAN_DIGITS[number])
    return re.sub("^一十", "十", "".join(parts))


def _attribute(element: Any, name: str) -> str:
    return str(element.get(f"{_W}{name}", ""))


def _value(element: Any | None) -> str:
    return _attribute(element, "val") if element is not None else ""


def _int(text: str, default: int = 0) -> int:
    return int(text) if text.isdecimal() and len(text) < 6 else default
