"""Markdown: headings as `#` lines, no front matter, no HTML tags, no pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from glm_rag_ingest.loaders.base import Extracted, clean_text, heading_title
from glm_rag_ingest.loaders.encoding import decode, lost_characters

VERSION = "markdown/3"
MEDIA_TYPE = "text/markdown"

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:(.+)$", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.MULTILINE)
_CODE = r"`[^`\n]+`|``[^\n]+?``"
# Bounded, because one that is never closed would be looked for to the end of the file.
_HTML_HEADING = re.compile(
    r"<h([1-6])\b[^>]{0,500}>(.{0,1000}?)</h\1\s*>", re.DOTALL | re.IGNORECASE
)
_INLINE_TAGS = (
    "a|abbr|b|big|code|del|em|font|i|img|kbd|picture|s|samp|small|source|span|strong|sub|sup|u"
)
_BLOCK_TAGS = (
    "center|dd|details|div|dl|dt|figcaption|figure|h[1-6]|hr|li|ol|p|pre|section|summary|svg|"
    "table|tbody|td|tfoot|th|thead|tr|ul|video"
)
# Code comes first so that `<div>` in back quotes stays.
_CODE_OR_TAG = re.compile(
    rf"(?P<code>{_CODE})|</?(?:{_INLINE_TAGS})\b[^>]*>"
    rf"|(?P<space><br\b[^>]*>)|(?P<block></?(?:{_BLOCK_TAGS})\b[^>]*>)",
    re.IGNORECASE,
)
_IMAGE = re.compile(
    r"!\[([^\]\n]{0,1000})\](?:\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*[^()\n]*\)|\[[^\]\n]*\])"
)
_SETEXT = re.compile(r"^(?=\S)(?![#>|`*+-]|\d+[.)] )(.+)\n {0,3}(=+|-{2,})[ \t]*$", re.MULTILINE)
_TABLE_ROW = re.compile(r"^\|.*\|[ \t]*$", re.MULTILINE)
_TITLE = re.compile(r"^#[ \t]+(\S.*)$", re.MULTILINE)


def extract(data: bytes) -> Extracted:
    """Clean Markdown; the title is that of the front matter, else the first top-level heading."""
    text = clean_text(decode(data))
    title = ""
    if front := _FRONT_MATTER.match(text):
        named = _FRONT_TITLE.search(front.group(1))
        title = named.group(1).strip(" \t\"'") if named else ""
        text = text[front.end() :]
    text = clean_text("".join(_without_markup(text)))
    return Extracted(text, title or _first_heading(text), warnings=lost_characters(text))


def _first_heading(text: str) -> str:
    # A comment in a shell example begins with `# ` too.
    prose = (_TITLE.search(part) for part, is_code in _fenced(text) if not is_code)
    return next((heading_title(found.group(1)) for found in prose if found), "")


def _without_markup(text: str) -> Iterator[str]:
    for part, is_code in _fenced(text):
        yield part if is_code else _strip(part)


def _fenced(text: str) -> Iterator[tuple[str, bool]]:
    """Cut into prose and fenced code; a fence that is never closed runs to the end."""
    start, fence = 0, ""
    for match in _FENCE.finditer(text):
        mark = match.group(1)
        if not fence:
            yield text[start : match.start()], False
            start, fence = match.start(), mark
        elif mark[0] == fence[0] and len(mark) >= len(fence):
            yield text[start : match.end()], True
            start, fence = match.end(), ""
    yield text[start:], bool(fence)


def _strip(text: str) -> str:
    text = "".join(_without_comments(text))
    text = _HTML_HEADING.sub(_as_heading, text)
    text = _IMAGE.sub(lambda m: m.group(1), text)
    text = _CODE_OR_TAG.sub(_without_tag, text)
    text = _TABLE_ROW.sub(lambda m: re.sub(r" {2,}", " ", m.group()), text)
    text = _SETEXT.sub(lambda m: f"{'#' if m.group(2)[0] == '=' else '##'} {m.group(1)}", text)
    return html.unescape(text)


def _without_comments(text: str) -> Iterator[str]:
    position = 0
    while (start := text.find("<!--", position)) >= 0:
        end = text.find("-->", start + 4)
        if end < 0:
            break
        yield text[position:start]
        position = end + 3
    yield text[position:]


def _as_heading(match: re.Match[str]) -> str:
    line = " ".join(_CODE_OR_TAG.sub(_without_tag, match.group(2)).split())
    return f"\n\n{'#' * int(match.group(1))} {line}\n\n" if line else ""


def _without_tag(match: re.Match[str]) -> str:
    if match.group("code"):
        return match.group()
    if match.group("space"):
        return " "
    return "\n" if match.group("block") else ""
