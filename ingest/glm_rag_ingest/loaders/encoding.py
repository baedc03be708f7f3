"""Bytes to text when the encoding is not stated, or stated wrongly."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence

from glm_rag.errors import MissingDependencyError
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
_MOST_NUL = 0.05  # more is UTF-16 or no text
# The commonest characters of Chinese prose, simplified and traditional: one character in five.
# Bytes of another encoding read as GB18030 give rare characters instead.
_COMMON_HAN = frozenset(
    "的一是不了在人有我他这这大来上个国到说们为子和你地出道也时年得就那要下以生会自着去之过家学"
    "對可里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经頭面"
    "公同三己老从动两长知民样现分将外但身些与高意进把法此实回二理美点月明其种声全工己話"
)
_HAN = re.compile(r"[\u4e00-\u9fff]")
_LEAST_COMMON = 0.06
_NOT_LATIN = re.compile(r"[\u0370-\u1dff\u2e80-\ud7ff\uf900-\uffef]")
_WESTERN = frozenset("àâäáãåæçèéêëìíîïñòóôöõøœùúûüÿßÀÂÄÁÃÅÆÇÈÉÊËÍÎÏÑÓÔÖÕØŒÚÛÜ¿¡«»€")
_CENTRAL = frozenset("áéíóúýäöüßôąćęłńśźżčďěňřšťůžőűâăîșțşţľĺŕđÁÉÍÓÚÝÄÖÜÔĄĆĘŁŃŚŹŻČĎĚŇŘŠŤŮŽŐŰ„”»«€")


def decode(data: bytes, declared: str | None = None) -> str:
    """Decode text of unknown encoding.

    Order: byte order mark, the declared charset, UTF-8, UTF-16 without a mark, GB18030 where
    the result reads as Chinese, then what charset-normalizer finds.

    Raises:
        DocumentError: binary data, or no encoding fits (`corrupt`).
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if data.count(0) <= _MOST_NUL * len(data):
        for label in _candidates(declared):
            text = _strict(data.replace(b"\0", b""), label)
            if text is not None:
                return text
    if b"\0" in data:
        return _decode_with_nul(data)
    text = _strict(data, "gb18030")
    if text is not None and _reads_as_chinese(text):
        return text
    return _detect(data)


def decode_names(names: Sequence[bytes]) -> list[str]:
    """File names, in one encoding for all: UTF-8, an East Asian one, or cp437."""
    joined = b"\n".join(names)
    text = _strict(joined, "utf-8")
    if text is None:
        text = _strict(joined, "gb18030")
    return text.split("\n") if text is not None else [name.decode("cp437") for name in names]


def looks_like_text(data: bytes) -> bool:
    """Whether the first bytes are those of a text in UTF-8 or with a byte order mark."""
    if any(data.startswith(mark) for mark, _ in _BOMS):
        return True
    head = data[:4096]
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    return b"\0" not in head and garbled_share(text) <= _MOST_GARBLED


def _candidates(declared: str | None) -> tuple[str | None, ...]:
    """Single-byte charsets decode anything, so what is valid UTF-8 is that first."""
    label = _known(declared)
    single_byte = label is not None and label.startswith(("cp125", "iso8859", "koi8"))
    return ("utf-8", label) if single_byte else (label, "utf-8")


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


def _decode_with_nul(data: bytes) -> str:
    """UTF-16 without a mark: most text has its NULs in every second byte."""
    even, odd = data[0::2].count(0), data[1::2].count(0)
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    text = _strict(data, encoding) if max(even, odd) > 8 * min(even, odd) else None
    if text is None or garbled_share(text) > _MOST_GARBLED:
        raise failure("corrupt", "binary data, not text")
    return text


def _reads_as_chinese(text: str) -> bool:
    han = _HAN.findall(text)
    common = sum(char in _COMMON_HAN for char in han)
    return bool(han) and common >= _LEAST_COMMON * len(han) and garbled_share(text) < _MOST_GARBLED


def _more_western(western: str, found: str) -> bool:
    """Western and Central European pages differ in a few letters only: the usual ones decide."""
    if _NOT_LATIN.search(found):
        return False
    return sum(map(_WESTERN.__contains__, western)) >= sum(map(_CENTRAL.__contains__, found))


def _detect(data: bytes) -> str:
    try:
        from charset_normalizer import from_bytes
    except ImportError as error:
        raise MissingDependencyError.for_extra("charset-normalizer", "documents") from error
    best = from_bytes(data[:_SAMPLE_BYTES]).best()
    found = _strict(data, best.encoding) if best is not None else None
    western = data.decode("cp1252", errors="replace")
    text = western if found is None or _more_western(western, found) else found
    if garbled_share(text) > _MOST_GARBLED:
        raise failure("corrupt", "not text in any known encoding; save it as UTF-8")
    return text
