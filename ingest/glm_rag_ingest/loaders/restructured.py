"""reStructuredText: headings as `#` lines, code fenced, roles and directives as pages show them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from glm_rag_ingest.loaders.base import Extracted, clean_text, heading_title
from glm_rag_ingest.loaders.encoding import decode, lost_characters

VERSION = "restructured/1"
MEDIA_TYPE = "text/x-rst"

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*")
_MOST_LEVEL = 6
_DIRECTIVE = re.compile(r"([ \t]*)\.\. (?:\|[^|\n]+\| )?([\w:+.-]+?)::[ \t]*(.*)")
_EXPLICIT = re.compile(r"[ \t]*\.\.(?:[ \t]|$)")
_TARGET = re.compile(r"[ \t]*(?:\.\. _|__ )")
_FOOTNOTE = re.compile(r"([ \t]*)\.\. \[([^\]\n]+)\][ \t]+(.*)")
_OPTION = re.compile(r"[ \t]*:[\w -]+:(?:[ \t]|$)")
_CODE = frozenset(("code", "code-block", "sourcecode", "literalinclude", "parsed-literal", "math"))
# What readers of the built page never see, or see elsewhere.
_DROPPED = frozenset(
    "contents toctree include image raw highlight index meta default-role role module "
    "currentmodule sectionauthor codeauthor unicode target-notes only tabularcolumns".split()
)
_INLINE = re.compile(
    r"(?P<code>``[^\n]+?``)"
    r"|(?:(?::[\w.+-]{1,60}){1,3}:)?`(?P<text>[^`<\n]*(?:\n[^`<\n]+)?)(?P<target><[^`>]*>)?`(?:__?)?"
    r"|\|(?P<name>[^|\s][^|\n]{0,200})\|(?:__?)?"
    r"|(?P<note>\[[^\[\]\n]{1,100}\])_"
)


def extract(data: bytes) -> Extracted:
    """Read the source as its built page shows it; the title is the first heading.

    The levels of headings follow from the order in which their underlines appear first.
    """
    text = decode(data)
    warnings = lost_characters(text)
    lines = clean_text(text.expandtabs(8)).split("\n")
    text = clean_text("\n".join(_lines(lines)))
    title = next((line for line in text.split("\n") if line.startswith("#")), "")
    return Extracted(text, heading_title(title.lstrip("#")), warnings=warnings)


def _lines(lines: list[str]) -> Iterator[str]:
    styles: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if found := _heading(lines, at):
            style, title, at = found
            if style not in styles:
                styles.append(style)
            yield from ("", f"{'#' * min(_MOST_LEVEL, styles.index(style) + 1)} {title}", "")
        elif directive := _DIRECTIVE.fullmatch(line):
            block, at = _block(lines, at + 1, len(directive.group(1)))
            yield from _directive(directive.group(2).lower(), directive.group(3), block)
        elif note := _FOOTNOTE.fullmatch(line):
            at += 1
            yield f"[{note.group(2)}] {_inline(note.group(3))}"
        elif _TARGET.match(line):
            at += 1
        elif _EXPLICIT.match(line):  # a comment
            at = _block(lines, at + 1, _indent(line))[1]
        elif line.rstrip().endswith("::"):
            block, after = _block(lines, at + 1, _indent(line))
            shown = _inline(line.rstrip()[:-1]) if line.strip() != "::" else ""
            yield from (shown, "", *_fenced(block))
            at = after
        else:
            yield line if _is_table_border(line) else _inline(line)
            at += 1


def _heading(lines: list[str], at: int) -> tuple[str, str, int] | None:
    """Style, title and the line behind a heading that begins at `at`."""
    following = [*lines[at + 1 : at + 3], "", ""]
    line = lines[at].strip()
    if _is_adornment(lines[at]) and following[1].strip() == line and following[0].strip():
        if not _is_adornment(following[0]):
            return f"over {line[0]}", _inline(following[0].strip()), at + 3
        return None
    is_text = bool(line) and not _is_adornment(lines[at]) and not lines[at].startswith((" ", ".."))
    if is_text and _is_adornment(following[0]) and len(following[0].rstrip()) * 2 >= len(line):
        return following[0][0], _inline(line), at + 2
    return None


def _is_adornment(line: str) -> bool:
    return bool(_ADORNMENT.fullmatch(line))


def _is_table_border(line: str) -> bool:
    return bool(re.fullmatch(r"[ \t]*[=+| -]*[=+-]{2}[=+| -]*", line))


def _block(lines: list[str], at: int, indent: int) -> tuple[list[str], int]:
    """The lines from `at` that are indented more than `indent`, without that, and what follows."""
    end = at
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > indent):
        end += 1
    block = lines[at:end]
    margin = min((_indent(line) for line in block if line.strip()), default=0)
    return [line[margin:] for line in block], end


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _directive(name: str, argument: str, block: list[str]) -> Iterator[str]:
    while block and (not block[0].strip() or _OPTION.match(block[0])):
        block = block[1:]
    if name in _DROPPED:
        return
    if name in _CODE:
        yield from ("", *_fenced(block, argument if name in ("code-block", "code") else ""))
        return
    if name == "replace":
        return
    label = "" if name in ("figure", "rubric", "table", "csv-table", "list-table") else name
    shown = "" if name == "figure" else argument
    head = ": ".join(filter(None, (label.replace("-", " ").capitalize(), _inline(shown))))
    yield from ("", head, "", *_lines(block), "")


def _fenced(block: list[str], language: str = "") -> list[str]:
    code = "\n".join(block).strip("\n")
    return [f"```{language}", code, "```", ""] if code.strip() else []


def _inline(text: str) -> str:
    return _INLINE.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    if match.group("code"):
        return match.group("code")[1:-1]
    if name := match.group("name") or match.group("note"):
        return name
    text = (match.group("text") or "").strip()
    if not text and match.group("target"):
        return match.group("target")[1:-1]
    # `~package.module.Name` is shown as its last part.
    return text[1:].rpartition(".")[2] if text.startswith("~") else text.lstrip("!")
