"""Which encoding of China, Taiwan, Japan or Korea a text is in, also when it is one line long."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

# The commonest characters of each script; they make up about half of any prose.
_SIMPLIFIED = (
    "的一是不了在人有我他这来大上个国到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可里后"
    "小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三己老从动两"
    "长知民样现分将外但身些与高意进把法此实回二理美点月明其种声全工业市区新部等产展报员全名第并被及本"
    "应情利信息服务请问题电话网文件内容使用数据管理系统关于中目录年度项合通知制度"
)
_TRADITIONAL = (
    "的一是不了在人有我他這來大上個國到說們為子和你地出道也時年得就那要下以生會自著去之過家學對可裡後"
    "小麼心多天而能好都然沒日於起還發成事只作當想看文無開手十用主行方又如前所本見經頭面公同三己老從動兩"
    "長知民樣現分將外但身些與高意進把法此實回二理美點月明其種聲全工業市區新部等產展報員名第並被及"
    "應情利信息服務請問題電話網文件內容使用數據管理系統關於中目錄年度項合通知制度檔案您台灣"
)
_JAPANESE = (
    "日本人一年大国会中出事自社者分生的時行上間手前合場同地方部学業円高気入見長定関新会対東金田"
    "動作使用文字書話語何名私思言後目今度代表現在権利由平等必要場合保存移動入力最初終了次全部"
)
_KOREAN = (
    "이다는에의가을하고를은로지사기한리자도인어서아나대시정있그해수들보전일라스제조부여장동성니과"
    "구상었으와주만거마면습까지우소요세모경공비문무원방게내개생명간것안신위년국치계관회업실등트오"
    "드려계단당유되중분미음때히할했될각선료학통러력말운른"
)
_MARKS = "，。、；：？！“”‘’（）《》【】—…·「」『』・〜～　"
# Control characters are in no text, so they count as odd ones.
_BEYOND_ASCII = re.compile(r"[^\t\n\f\r\x1a -\x7e]")
# Python's cp932 gives the last four to bytes that have no meaning.
_LOST = frozenset("\ufffd\uf8f0\uf8f1\uf8f2\uf8f3")
_WORTH_COMMON, _WORTH_USUAL, _WORTH_ODD = 1.0, 0.25, -1.0
# Real prose of ten characters scores 0.4 to 0.9, the same bytes read wrongly below 0.2.
LEAST_SCORE = 0.3
_MOST_LOST = 0.02
_SAMPLE_BYTES = 60_000


@dataclass(frozen=True, slots=True)
class _Script:
    """How text in one encoding looks: its commonest characters, and its usual ones."""

    encoding: str
    common: frozenset[str]
    usual: frozenset[str]


def detect(data: bytes, least: float = LEAST_SCORE) -> str | None:
    """Name of the encoding that turns `data` into text as people write it; None if there is none.

    `least` is the mean worth of a character (-1 odd, 0.25 usual, 1 common) that will do.

    Every byte pair is a character in several of these encodings; what differs is whether it is a
    common one (a unigram measure as in Li and Momoi, "A composite approach to language/encoding
    detection", 2001).
    """
    sample = data[:_SAMPLE_BYTES]
    scores = {script.encoding: _score(sample, script) for script in _scripts()}
    best = max(scores, key=scores.__getitem__)
    return best if scores[best] >= least else None


def decode(data: bytes, least: float = LEAST_SCORE) -> str | None:
    """The text of `data` where `detect` finds an encoding; bytes without a meaning as U+FFFD."""
    encoding = detect(data, least)
    if encoding is None:
        return None
    text = data.decode(encoding, errors="replace")
    return text.translate(dict.fromkeys(map(ord, _LOST), "\ufffd"))


def _score(data: bytes, script: _Script) -> float:
    """Mean worth of the characters beyond ASCII; -1 where the bytes do not fit the encoding."""
    if script.encoding.startswith("utf-16") and len(data) % 2:
        return -1.0
    text = data.decode(script.encoding, errors="replace")
    wide = _BEYOND_ASCII.findall(text)
    lost = sum(char in _LOST for char in wide[:-1])  # the sample may end within a character
    if not wide or lost > _MOST_LOST * len(wide):
        return -1.0
    worth = 0.0
    for char in wide:
        if char in script.common:
            worth += _WORTH_COMMON
        else:
            worth += _WORTH_USUAL if char in script.usual else _WORTH_ODD
    return worth / len(wide)


@functools.cache
def _scripts() -> tuple[_Script, ...]:
    kana = frozenset(map(chr, range(0x3041, 0x30FF)))
    simplified = _region("gb2312", range(0xB0, 0xD8)) | _region("gb2312", range(0xA1, 0xA4))
    traditional = _region("big5", range(0xA1, 0xC7))
    japanese = _region("euc_jp", range(0xA1, 0xA4)) | _region("euc_jp", range(0xB0, 0xD0)) | kana
    korean = _region("euc_kr", range(0xA1, 0xA4)) | _region("euc_kr", range(0xB0, 0xC9))
    chinese = frozenset(_SIMPLIFIED + _MARKS)
    hangul = frozenset(_KOREAN + _MARKS)
    both = kana | frozenset(_JAPANESE + _MARKS)
    anyones = chinese | frozenset(_TRADITIONAL) | both | hangul
    anyone = simplified | traditional | japanese | korean
    return (
        _Script("gb18030", chinese, simplified | frozenset(_TRADITIONAL)),
        _Script("big5hkscs", frozenset(_TRADITIONAL + _MARKS), traditional),
        _Script("cp932", both, japanese),
        _Script("euc_jp", both, japanese),
        _Script("cp949", hangul, korean),
        _Script("utf-16-le", anyones, anyone),
        _Script("utf-16-be", anyones, anyone),
    )


def _region(encoding: str, rows: range) -> frozenset[str]:
    """Two-byte characters whose first byte is in `rows`; standards keep the usual ones together."""
    pairs = (bytes((row, cell)) for row in rows for cell in range(0x40, 0xFF))
    return frozenset(pair.decode(encoding, errors="ignore") for pair in pairs)
