"""What every loader gives back, and the rules for text that all of them share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from glm_rag.errors import DocumentError
from glm_rag.types import ExtractedDocument, IngestFailure, PageSpan

_LINE_END = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Control characters but tab and line feed, noncharacters, lone surrogates, byte order marks and
# characters without width that split words for a search: soft hyphen, zero-width space.
_UNWANTED = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u2060\ufeff\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]"
)
# Possessive, from the first space on: long rows of spaces inside a line must not be quadratic.
_TRAILING_SPACE = re.compile(r"(?<![ \t])[ \t]++$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
# What a PDF without a character map, or bytes that are no text, turn into.
_GARBLED = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff\U000f0000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a file: its path there, with `/`, and how to get its bytes.

    `read` is called at most once, before the next member is asked for, and not at all for names
    that are refused or left out. It raises `DocumentError` where there are no bytes to have.
    """

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a loader read out of one file's bytes; `text` has gone through `clean_text`.

    `members` are read by the loaders of their own names, one after another, and become documents
    of their own; a file with members may have an empty text. `media_type` is set where the loader's
    own is too general.
    """

    text: str
    title: str = ""
    pages: tuple[PageSpan, ...] = ()
    warnings: tuple[str, ...] = ()
    members: Iterable[Member] = ()
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """All that one file holds: the file's own document first, then those of its members.

    The file's own document has an empty text where only members have any. `failures` concern
    members; their sources begin with the file's.
    """

    documents: tuple[ExtractedDocument, ...]
    failures: tuple[IngestFailure, ...] = ()


def failure(reason: str, detail: str, *, permanent: bool = True) -> DocumentError:
    """A `DocumentError` whose one line begins with the reason."""
    line = " ".join(detail.split())
    return DocumentError(f"{reason}: {line}", reason=reason, permanent=permanent)


def clean_text(text: str) -> str:
    """Line ends as `\\n`, at most one blank line in a row, no control characters."""
    text = _UNWANTED.sub("", _LINE_END.sub("\n", text))
    text = _BLANK_LINES.sub("\n\n", _TRAILING_SPACE.sub("", text))
    return text.strip("\n")


def heading_title(line: str) -> str:
    """A Markdown heading's text without the `#`s that close it, which stand behind a space."""
    title = line.strip(" \t")
    bare = title.rstrip("#")
    return bare.rstrip(" \t") if bare.endswith((" ", "\t")) else title


def garbled_share(text: str) -> float:
    """Share of the characters that no reader could make sense of, 0 to 1."""
    return len(_GARBLED.findall(text)) / max(1, len(text))
