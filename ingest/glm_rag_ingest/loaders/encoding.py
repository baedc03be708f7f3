"""Bytes to text when the encoding is not stated, or stated wrongly."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence

from glm_rag.errors import MissingDependencyError
from glm_rag_ingest.loaders import east_asian
from glm_rag_ingest.loaders.base import failure, garbled_share

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Labels mean their supersets, as in the WHATWG Encoding Standard.
_SUPERSETS = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "x-gbk": "gb18030",
    "iso-8859-1": "cp1252",
    "latin-1": "cp1252",
    "latin1": "cp1252",
    "ascii": "cp1252",
    "us-ascii": "cp1252",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "sjis": "cp932",
    "x-sjis": "cp932",
    "ks_c_5601-1987": "cp949",
    "euc-kr": "cp949",
}
# Every charset that charset-normalizer finds in a large file shows in its beginning.
_SAMPLE_BYTES = 131_072
_MOST_GARBLED = 0.02
_MOST_NUL = 0.05  # more is UTF-16, UTF-32 or no text
# A file with so many times more good sequences than broken ones is damaged UTF-8, nothing else.
_GOOD_PER_BROKEN = 4
_SINGLE_BYTE = ("cp125", "cp874", "iso8859", "koi8", "mac-")
_HIGH_PAIRS = re.compile(rb"[\xa1-\xfe]{4}")
_NOT_LATIN = re.compile(r"[\u0370-\u1dff\u2e80-\ud7ff\uf900-\uffef]")
_WESTERN = frozenset("àâäáãåæçèéêëìíîïñòóôöõøœùúûüÿßÀÂÄÁÃÅÆÇÈÉÊËÍÎÏÑÓÔÖÕØŒÚÛÜ¿¡«»€")
_WESTERN_MARKS = "‘’“”„–—…•°§©®™´·\xa0\xad"
_CENTRAL = frozenset("áéíóúýäöüßôąćęłńśźżčďěňřšťůžőűâăîșțşţľĺŕđÁÉÍÓÚÝÄÖÜÔĄĆĘŁŃŚŹŻČĎĚŇŘŠŤŮŽŐŰ„”»«€")


def decode(data: bytes, declared: str | None = None) -> str:
    """Decode text of unknown encoding.

    Order: byte order mark, the declared charset unless it would take any bytes, UTF-8 (damaged
    too), UTF-16 and UTF-32 without a mark, the encodings of East Asia where the result reads as
    people write, the declared charset of one byte a character, what charset-normalizer finds.
    Bytes that fit nothing become U+FFFD; `lost_characters` puts that into words.

    Raises:
        DocumentError: binary data, or no encoding fits (`corrupt`).
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if data.count(0) > _MOST_NUL * len(data):
        return _decode_with_nul(data)
    bare = data.replace(b"\0", b"")
    label = _known(declared)
    takes_anything = label is not None and label.startswith(_SINGLE_BYTE)
    for charset in ("utf-8",) if takes_anything else (label, "utf-8"):
        if (text := _strict(bare, charset)) is not None:
            return text
    if (text := _damaged_utf8(bare)) is not None:
        return text
    if (text := east_asian.decode(data)) is not None:
        return text
    if len(bare) < len(data) and (text := _utf16(data)) is not None:
        return text
    if takes_anything and (text := _strict(bare, label)) is not None:
        return text
    return _detect(bare)


def lost_characters(text: str) -> tuple[str, ...]:
    """The warning of a text in which some bytes made no sense; nothing where all did."""
    lost = text.count("\ufffd")
    return (f"{lost} unreadable characters, shown as \ufffd",) if lost else ()


def decode_names(names: Sequence[bytes]) -> list[str]:
    """File names, in one encoding for all: UTF-8, an East Asian one, or cp437."""
    joined = b"\n".join(names)
    # Names are short and often of rare words; letters with accents stand one by one in others.
    least = 0.0 if _HIGH_PAIRS.search(joined) else east_asian.LEAST_SCORE
    text = _strict(joined, "utf-8")
    if text is None:
        text = east_asian.decode(joined, least)
    return text.split("\n") if text is not None else [name.decode("cp437") for name in names]


def looks_like_text(data: bytes) -> bool:
    """Whether the first bytes are those of a text in UTF-8 or with a byte order mark."""
    if any(data.startswith(mark) for mark, _ in _BOMS):
        return True
    head = data[:4096]
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    return b"\0" not in head and garbled_share(text) <= _MOST_GARBLED


def _known(label: str | None) -> str | None:
    if not label:
        return None
    label = label.strip().lower()
    label = _SUPERSETS.get(label, label)
    try:
        return codecs.lookup(label).name
    except LookupError:
        return None


def _strict(data: bytes, encoding: str | None) -> str | None:
    if encoding is None:
        return None
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _damaged_utf8(data: bytes) -> str | None:
    """UTF-8 in which a few bytes are broken, or whose end is cut off."""
    text = data.decode("utf-8", errors="replace")
    lost = text.count("\ufffd")
    good = len(text) - len(text.encode("ascii", errors="ignore")) - lost
    return text if good >= _GOOD_PER_BROKEN * lost else None


def _decode_with_nul(data: bytes) -> str:
    for read in (_utf32, east_asian.decode, _utf16):
        text = read(data)
        if text is not None and garbled_share(text) <= _MOST_GARBLED:
            return text
    raise failure("corrupt", "binary data, not text")


def _utf32(data: bytes) -> str | None:
    """UTF-32 without a mark: nearly nothing else is valid as such."""
    whole = data[: len(data) // 4 * 4]
    for encoding in ("utf-32-le", "utf-32-be"):
        text = _strict(whole, encoding)
        if text is not None and 2 * sum(char > "\uffff" for char in text) < len(text):
            return text
    return None


def _utf16(data: bytes) -> str | None:
    """UTF-16 without a mark: most text has its NULs in every second byte."""
    even, odd = data[0::2].count(0), data[1::2].count(0)
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    whole = data[: len(data) // 2 * 2]
    return _strict(whole, encoding) if max(even, odd) > 8 * min(even, odd) else None


def _more_western(western: str, found: str) -> bool:
    """Western and Central European pages differ in a few letters only: the usual ones decide.

    Where the other script is not Latin, few letters with accents among many without do.
    """
    if _NOT_LATIN.search(found):
        beyond = re.findall(r"[^\0-\x7f]", western)
        letters = sum(map(str.isalpha, western))
        return 2 * len(beyond) < letters and _WESTERN.union(_WESTERN_MARKS).issuperset(beyond)
    return sum(map(_WESTERN.__contains__, western)) >= sum(map(_CENTRAL.__contains__, found))


def _detect(data: bytes) -> str:
    try:
        from charset_normalizer import from_bytes
    except ImportError as error:
        raise MissingDependencyError.for_extra("charset-normalizer", "documents") from error
    best = from_bytes(data[:_SAMPLE_BYTES]).best()
    found = _strict(data, best.encoding) if best is not None else None
    western = data.decode("cp1252", errors="replace")
    text = (
        western
        if found is None or _more_western(western[:_SAMPLE_BYTES], found[:_SAMPLE_BYTES])
        else found
    )
    if garbled_share(text) > _MOST_GARBLED:
        raise failure("corrupt", "not text in any known encoding; save it as UTF-8")
    return text
