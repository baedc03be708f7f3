"""Classes and functions of source code: by its syntax tree in Python, else by lines and indents.

The rule for other languages reads no grammar: a line that looks like the head of a definition
holds the lines below it that are indented deeper. Wrong guesses cost a better cut, never text.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from glm_rag_ingest.splitting.sections import Section

_CODE = "text/x-"
_NOT_CODE = frozenset(("log", "markdown", "org", "rst", "tex"))
_PYTHON = frozenset(("python", "python3", "py"))

_LONGEST_HEAD = 200  # characters of a line that may be the head of a definition
_LONGEST_TITLE = 80
_MODIFIERS = (
    r"(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|unsafe"
    r"|pub(?:\([^)]*\))?|const|inline|virtual|override|open|sealed|data|local|partial|declare"
    r"|typedef|extern|case|companion)\s+)*"
)
_HOLDS = (
    r"(?:class|struct|enum|union|interface|trait|impl|protocol|extension|namespace|module|mod"
    r"|object|record|type)"
)
_RUNS = r"(?:def|fn|func|fun|function|sub|proc|procedure|macro)"
_CONTAINER = re.compile(rf"{_MODIFIERS}{_HOLDS}\b[ \t]*[<A-Za-z_$]")
_FUNCTION = re.compile(
    rf"{_MODIFIERS}{_RUNS}\b[ \t*]*[<(A-Za-z_$]"
    r"|(?:export\s+)?(?:const|let|var)\s+[\w$]+\s*=\s*(?:async\s*)?"
    r"(?:function\b|\([^()]*\)\s*=>|[\w$]+\s*=>)"
    r"|(?i:create\s+(?:or\s+replace\s+)?(?:table|view|function|procedure|trigger)\b)"
    # `int main(int argc, char **argv) {`, its brace perhaps on the next line
    r"|(?!(?:if|for|foreach|while|switch|return|else|elif|catch|do|try|with|new|throw|case|using"
    r"|lock|when|unless|until|synchronized|await|yield|assert|print|echo)\b)"
    r"[A-Za-z_~][\w<>\[\],.:*&~ \t$]*\([^;{}=]*(?:\{|(?<!,)$)"
)
# Lines that belong to the definition above although they are not indented deeper.
_GOES_ON = re.compile(r"[)\]}{]|end\b|(?:public|private|protected)\b[^;({]*:\s*$")
_COMMENT = re.compile(r"#(?!include|define|if|el|end|pragma|import|undef)|//|/\*|\*|--(?!-)|;;")
_ABOVE = re.compile(rf"(?:{_COMMENT.pattern})|@|\[\w")
_LINE = re.compile(r"\S[^\n]*")


@dataclass(frozen=True, slots=True)
class _Line:
    start: int  # of its first letter
    end: int
    indent: int
    number: int
    text: str


@dataclass(slots=True)
class _Open:
    start: int
    body: int
    indent: int
    title: str
    holds: bool


def code_language(media_type: str) -> str | None:
    """The language of source code by its media type, `text/x-python` say; None for other text."""
    language = media_type.removeprefix(_CODE)
    return None if language == media_type or language in _NOT_CODE else language


def definitions(text: str, start: int, end: int, language: str) -> list[Section]:
    """Classes, their methods and functions in `text[start:end]`, in order, nested.

    A section begins with the comments and decorators above the definition; its heading ends
    where the body begins.
    """
    lines = list(_lines(text, start, end))
    if language in _PYTHON:
        found = _python(text[start:end], lines)
        if found is not None:
            return found
    return sorted(_by_indent(lines), key=lambda section: (section.start, -section.end))


def _lines(text: str, start: int, end: int) -> Iterator[_Line]:
    """Lines that are not blank; tabs count as one column, since a file seldom mixes them."""
    number, line_start, position = 0, start, start
    for match in _LINE.finditer(text, start, end):
        breaks = text.count("\n", position, match.start())
        if breaks:
            number += breaks
            line_start = text.rfind("\n", position, match.start()) + 1
        position = match.start()
        stripped = match.group().rstrip()
        yield _Line(position, position + len(stripped), position - line_start, number, stripped)


# ---------------------------------------------------------------- Python


def _python(code: str, lines: Sequence[_Line]) -> list[Section] | None:
    """Definitions by the syntax tree; None for what this Python does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody's strings
            tree = ast.parse(code.replace("\r", " "))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    by_number = {line.number: index for index, line in enumerate(lines)}
    return list(_in_body(tree, lines, by_number))


def _in_body(
    parent: ast.AST, lines: Sequence[_Line], by_number: dict[int, int]
) -> Iterator[Section]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield _definition(node, lines, by_number)
            if isinstance(node, ast.ClassDef):
                yield from _in_body(node, lines, by_number)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            yield from _in_body(node, lines, by_number)


def _definition(
    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
    lines: Sequence[_Line],
    by_number: dict[int, int],
) -> Section:
    first, head = by_number[_first_line(node) - 1], by_number[node.lineno - 1]
    last = by_number[(node.end_lineno or node.lineno) - 1]
    body = by_number[_first_line(node.body[0]) - 1]
    while body > head + 1 and lines[body - 1].text.startswith("#"):
        body -= 1
    kind = {ast.ClassDef: "class", ast.FunctionDef: "def"}.get(type(node), "async def")
    return Section(
        start=lines[_with_lines_above(lines, first)].start,
        body=lines[body].start if body > head else lines[head].end,
        end=lines[last].end,
        title=f"{kind} {node.name}",
    )


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


# ---------------------------------------------------------------- other languages


def _by_indent(lines: Sequence[_Line]) -> Iterator[Section]:
    open_: list[_Open] = []
    inside = lines[0].end if lines else 0  # where the last line ended that is surely in `open_`
    for index, line in enumerate(lines):
        if _COMMENT.match(line.text) and open_ and _indent(line) <= open_[-1].indent:
            continue
        while open_ and line.indent <= open_[-1].indent:
            if line.indent == open_[-1].indent and _GOES_ON.match(line.text):
                break
            yield _closed(open_.pop(), inside)
        inside = line.end
        if all(outer.holds for outer in open_) and (head := _head(line)) is not None:
            above = _with_lines_above(lines, index)
            body = lines[index + 1].start if index + 1 < len(lines) else line.end
            open_.append(_Open(lines[above].start, body, line.indent, *head))
    while open_:
        yield _closed(open_.pop(), inside)


def _closed(found: _Open, end: int) -> Section:
    return Section(found.start, min(found.body, end), end, found.title)


def _head(line: _Line) -> tuple[str, bool] | None:
    """Title of a definition whose head the line is, and whether it holds others."""
    text = line.text
    if len(text) > _LONGEST_HEAD or text.endswith((";", ",")) or _COMMENT.match(text):
        return None
    holds = _CONTAINER.match(text) is not None
    if not holds and not _FUNCTION.match(text):
        return None
    if not holds and line.indent and text.endswith(")") and "(" in text.split()[0]:
        return None  # a call
    return text.partition("{")[0].rstrip(" \t:")[:_LONGEST_TITLE], holds


def _with_lines_above(lines: Sequence[_Line], index: int) -> int:
    """First of the comments and decorators above a line, two blank lines between at most."""
    while index > 0:
        above, line = lines[index - 1], lines[index]
        if line.number - above.number > 3 or not _ABOVE.match(above.text):
            break
        if _indent(above) != _indent(line):
            break
        index -= 1
    return index


def _indent(line: _Line) -> int:
    """Of the text a comment is about: ` * ...` stands one column to the right of its `/**`."""
    return line.indent - line.text.startswith("*")
