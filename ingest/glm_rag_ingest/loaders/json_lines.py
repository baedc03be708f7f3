"""JSON and JSON Lines as text: `key: value` lines, and tables for lists of flat records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders.base import Extracted, clean_text, failure
from glm_rag_ingest.loaders.encoding import decode
from glm_rag_ingest.loaders.tables import markdown_rows

VERSION = "json_lines/1"
MEDIA_TYPE = "application/json"
SUFFIXES = (".json", ".jsonl", ".ndjson")

_MOST_DEPTH = 100
_MOST_COLUMNS = 30
_LONGEST_CELL = 200  # characters; records with longer ones are paragraphs, not rows
_LEAST_GOOD = 0.5  # share of the lines that must be records in a damaged JSON Lines file
_MOST_WARNINGS = 5


def extract(data: bytes) -> Extracted:
    """Values with the path of their keys; numbers exactly as they are written.

    Lines of a JSON Lines file that are no JSON become warnings.

    Raises:
        DocumentError: `corrupt`, with line and column, or `unsupported` for what is nested deeper
            than 100 levels.
    """
    text = decode(data)
    warnings: tuple[str, ...] = ()
    try:
        value = parse(text)
    except DocumentError as error:
        value, warnings = _lines(text, error)
    title = value.get("title") if isinstance(value, dict) else ""
    lines = "\n".join(_value_lines(value, "", 0))
    return Extracted(clean_text(lines), title if isinstance(title, str) else "", (), warnings)


def parse(text: str) -> Any:
    """Parse JSON with numbers, NaN and infinities as the text that stands there.

    Raises:
        DocumentError: `corrupt`, or `unsupported` for what is nested too deep.
    """
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str, strict=False)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise failure("corrupt", f"not JSON: {error.msg.lower()} in {where}") from error
    except RecursionError as error:
        raise _too_deep() from error


def _too_deep() -> DocumentError:
    return failure("unsupported", f"nested more than {_MOST_DEPTH} levels deep")


def _lines(text: str, whole: DocumentError) -> tuple[list[Any], tuple[str, ...]]:
    """One value per line. Raises `whole` where that is not what the text is."""
    values: list[Any] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values.append(parse(line))
        except DocumentError as error:
            detail = str(error).replace("corrupt: ", "").replace(" in line 1, ", ", ")
            problems.append(f"line {number}: {detail}, left out")
    records = sum(isinstance(value, dict | list) for value in values)
    if len(values) + len(problems) < 2 or records < _LEAST_GOOD * (len(values) + len(problems)):
        raise whole
    more = len(problems) - _MOST_WARNINGS
    more_lines = [f"{more} more lines are not JSON, left out"] if more > 0 else []
    return values, (*problems[:_MOST_WARNINGS], *more_lines)


def _value_lines(value: Any, path: str, depth: int) -> Iterator[str]:
    if depth > _MOST_DEPTH:
        raise _too_deep()
    if isinstance(value, dict):
        yield from _object_lines(value, path, depth)
    elif isinstance(value, list):
        yield from _list_lines(value, path, depth)
    else:
        shown = _shown(value)
        separator = "\n" if "\n" in shown else " "
        yield f"{path}:{separator}{shown}" if path else shown


def _object_lines(value: dict[str, Any], path: str, depth: int) -> Iterator[str]:
    for key, inner in value.items():
        name = " ".join(key.split())
        yield from _value_lines(inner, f"{path}.{name}" if path else name, depth + 1)


def _list_lines(value: list[Any], path: str, depth: int) -> Iterator[str]:
    if columns := _columns(value):
        rows = [[_shown(record.get(key, "")) for key in columns] for record in value]
        yield f"\n{path}:\n" if path else ""
        yield markdown_rows([columns, *rows], has_header=True) + "\n"
        return
    if all(not isinstance(item, dict | list) for item in value):
        shown = [_shown(item) for item in value]
        joined = ", ".join(shown)
        if path and len(joined) <= _LONGEST_CELL and "\n" not in joined:
            yield f"{path}: {joined}"
            return
    for number, item in enumerate(value, start=1):
        is_record = isinstance(item, dict | list)
        if is_record and number > 1:
            yield ""
        inner = f"{path}[{number}]" if path and is_record else path
        yield from _value_lines(item, inner, depth + 1)


def _columns(value: Sequence[Any]) -> list[str]:
    """The keys of a list of flat records with short values; empty for any other list."""
    if len(value) < 2 or not all(isinstance(item, dict) and item for item in value):
        return []
    columns: dict[str, None] = {}
    for record in value:
        columns.update(dict.fromkeys(record))
        if len(columns) > _MOST_COLUMNS or not all(map(_is_cell, record.values())):
            return []
    cells = sum(map(len, value))
    return list(columns) if 2 * cells >= len(value) * len(columns) else []


def _is_cell(value: Any) -> bool:
    is_long = isinstance(value, str) and (len(value) > _LONGEST_CELL or "\n" in value)
    return not isinstance(value, dict | list) and not is_long


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
