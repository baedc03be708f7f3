"""Filters by metadata, in SQL.

A filter is a mapping; every entry must hold. A value asks for equality, a list for any of its
values, `None` for absence, a mapping for operators: `prefix` (of a text, or a list of them) and
`gt`, `gte`, `lt`, `lte`. Texts compare with texts and numbers with numbers.

Four keys are about the document: `path` (a file, or with `prefix` a folder and all below it),
`added_at` and `mtime` (seconds since 1970, or an ISO date or time, local unless it says
otherwise; a date means the whole day), `document_language`.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from glm_rag.errors import ConfigError
from glm_rag.settings import expand_user

# Metadata of chunks of files; texts that were added without a file have what they came with.
_COLUMNS = {
    "title": "d.title",
    "container": "d.container",
    "page": "c.page",
    "start": "c.start_offset",
    "end": "c.end_offset",
    "chunk_index": "c.chunk_index",
    "content_hash": "c.content_hash",
    "language": "c.language",
    "document_language": "d.language",
    "added_at": "d.added_at",
    "mtime": "d.mtime",
}
_OF_DOCUMENT = {
    "document_language": "d.language",
    "added_at": "d.added_at",
    "mtime": "nullif(d.mtime, 0)",
}
_DATES = ("added_at", "mtime")
_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_OPERATORS = ("prefix", *_COMPARISONS)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
# No text that begins with a prefix comes after the prefix with this behind it.
_LAST = "\U0010ffff"
# Values of one entry; SQLite takes 32,766 parameters in all.
_MAX_OPTIONS = 10_000
# What stands between a path and what lies in it: folders, and members of archives and mails.
_BELOW = ("/", "#", "!")


# One of these must hold, and in it every comparison: (`==`, `<`, `null`, ..., value).
AnyOf = tuple[tuple[tuple[str, Any], ...], ...]


@dataclass
class Condition:
    """What SQL asks of a value, which stands as `{}` in the test, and the parameters by name.

    `any_of` says the same for stores that know no SQL.
    """

    name: str
    test: str
    any_of: AnyOf
    parameters: dict[str, Any] = field(default_factory=dict)


def matching_ids(connection: sqlite3.Connection, where: Mapping[str, Any]) -> np.ndarray:
    """Sorted ids of the chunks that a filter lets through.

    Raises:
        ConfigError: a key, operator or value that metadata cannot be compared with.
    """
    parameters: dict[str, Any] = {}
    of_files, of_texts = ["c.extra IS NULL"], ["c.extra IS NOT NULL"]
    for number, condition in enumerate(conditions(where)):
        prefix = f"p{number}_"
        marks = {name: f":{prefix}{name}" for name in condition.parameters}
        parameters |= {prefix + name: value for name, value in condition.parameters.items()}
        parameters[f"{prefix}key"] = f'$."{condition.name}"'
        test = condition.test.format("{value}", **marks)
        of_files.append(_of_file(condition.name, test))
        of_texts.append(_of_text(condition.name, test, f":{prefix}key"))
    # Two queries, so that each can use an index.
    query = (
        "SELECT c.id FROM documents AS d JOIN chunks AS c ON c.document_id = d.id "
        f"WHERE {' AND '.join(of_files)} UNION ALL "
        "SELECT c.id FROM chunks AS c JOIN documents AS d ON d.id = c.document_id "
        f"WHERE {' AND '.join(of_texts)}"
    )
    rows = connection.execute(query, parameters)
    return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64))


def _of_file(name: str, test: str) -> str:
    """A condition on the chunks of files; their document may have several sources."""
    if name != "source":
        return test.format(value=_COLUMNS.get(name, "NULL"))
    by_source = test.format(value="source")
    return (
        f"d.id IN (SELECT id FROM documents WHERE {by_source} UNION ALL "
        f"SELECT document_id FROM copies WHERE {by_source})"
    )


def _of_text(name: str, test: str, key: str) -> str:
    """A condition on a text's own metadata, else on what is known of its document."""
    given = f"json_extract(c.extra, {key})"
    if name in _OF_DOCUMENT:
        given = f"coalesce({given}, {_OF_DOCUMENT[name]})"
    return test.format(value=given)


def conditions(where: Mapping[str, Any]) -> Iterator[Condition]:
    """What a filter asks, entry by entry.

    Raises:
        ConfigError: a key, operator or value that metadata cannot be compared with.
    """
    for name, wanted in where.items():
        if not isinstance(name, str) or '"' in name:
            raise ConfigError(f"cannot filter by {name!r}: name a key of the metadata")
        if isinstance(wanted, Mapping):
            yield from _operators(name, wanted)
        elif name == "path":
            yield _any_of("source", [_path_uri(value) for value in _listed(name, wanted)])
        elif wanted is None:
            yield Condition(name, "{} IS NULL", ((("null", None),),))
        elif name in _DATES:
            yield _on_any_day(name, _listed(name, wanted))
        else:
            yield _any_of(name, _languages(name, _listed(name, wanted)))


def _any_of(name: str, options: list[Any]) -> Condition:
    values = {f"v{number}": option for number, option in enumerate(options)}
    any_of = tuple((("==", option),) for option in options)
    marks = ", ".join(f"{{{mark}}}" for mark in values)
    return Condition(name, f"{{}} IN ({marks})", any_of, values)


def _on_any_day(name: str, options: list[Any]) -> Condition:
    tests: list[str] = []
    any_of: list[tuple[tuple[str, Any], ...]] = []
    values: dict[str, Any] = {}
    for number, option in enumerate(options):
        start, end = _span_of(name, option)
        values |= {f"from{number}": start, f"to{number}": end}
        upper = "<" if end > start else "<="
        tests.append(f"({{0}} >= {{from{number}}} AND {{0}} {upper} {{to{number}}})")
        any_of.append(((">=", start), (upper, end)))
    return Condition(name, f"({' OR '.join(tests) or '0'})", tuple(any_of), values)


def _operators(name: str, wanted: Mapping[str, Any]) -> Iterator[Condition]:
    unknown = [operator for operator in wanted if operator not in _OPERATORS]
    if unknown or not wanted:
        by = repr(unknown[0]) if unknown else "nothing"
        raise ConfigError(f"cannot filter {name!r} by {by}: use {', '.join(_OPERATORS)}")
    for operator, value in wanted.items():
        if operator == "prefix":
            yield _prefix(name, _listed(name, value))
        elif name == "path":
            raise ConfigError(f"cannot filter 'path' by {operator!r}: use prefix")
        elif name in _DATES:
            yield _before_or_after(name, operator, value)
        else:
            (bound,) = _listed(name, [value])
            kinds = "('text')" if isinstance(bound, str) else "('integer', 'real')"
            test = f"({{0}} {_COMPARISONS[operator]} {{bound}} AND typeof({{0}}) IN {kinds})"
            yield Condition(name, test, (((_COMPARISONS[operator], bound),),), {"bound": bound})


def _before_or_after(name: str, operator: str, value: Any) -> Condition:
    """A date is the whole day: `gt` begins behind it, `lte` ends with it."""
    start, end = _span_of(name, value)
    if end == start:
        compared, bound = _COMPARISONS[operator], start
    else:
        compared = ">=" if operator[0] == "g" else "<"
        bound = {"gt": end, "gte": start, "lt": start, "lte": end}[operator]
    return Condition(name, f"{{}} {compared} {{bound}}", (((compared, bound),),), {"bound": bound})


def _prefix(name: str, options: list[Any]) -> Condition:
    tests: list[str] = []
    any_of: list[tuple[tuple[str, Any], ...]] = []
    values: dict[str, Any] = {}
    for number, option in enumerate(options):
        if not isinstance(option, str):
            raise ConfigError(f"cannot filter {name!r} by the prefix {option!r}: give a text")
        begins = [option]
        if name == "path":
            whole = _path_uri(option)
            begins = [whole.rstrip("/") + mark for mark in _BELOW]
            values[f"is{number}"] = whole
            tests.append(f"{{0}} = {{is{number}}}")
            any_of.append((("==", whole),))
        for place, begin in enumerate(begins):
            mark = f"{number}_{place}"
            values |= {f"from{mark}": begin, f"to{mark}": begin + _LAST}
            tests.append(f"{{0}} BETWEEN {{from{mark}}} AND {{to{mark}}}")
            any_of.append(((">=", begin), ("<=", begin + _LAST)))
    asked = "source" if name == "path" else name
    return Condition(asked, f"({' OR '.join(tests) or '0'})", tuple(any_of), values)


def _path_uri(value: Any) -> str:
    """A path as the source of its file; URIs and other identifiers stay as they are."""
    if isinstance(value, str) and _URI.match(value):
        return value
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(f"cannot filter 'path' by {value!r}: give a path or a file URI")
    return Path(os.path.realpath(expand_user(value))).as_uri()


def _span_of(name: str, value: Any) -> tuple[float, float]:
    """First and last second that a value means: equal for an instant, else up to the next day."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value), float(value)
    text = str(value).strip()  # YAML reads a date as a date
    try:
        moment = datetime.fromisoformat(text)
        is_day = len(text) <= len("2026-01-31")
        end = moment + timedelta(days=1) if is_day else moment
        return moment.timestamp(), end.timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(
            f"cannot filter {name!r} by {value!r}: give a date like 2026-01-31, a time like "
            "2026-01-31T09:00, or seconds since 1970"
        ) from error


def _languages(name: str, options: list[Any]) -> list[Any]:
    for option in options if name == "document_language" else ():
        if option not in ("en", "zh"):
            raise ConfigError(f"cannot filter 'document_language' by {option!r}: use en or zh")
    return options


def _listed(name: str, wanted: Any) -> list[Any]:
    options = list(wanted) if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
    allowed: tuple[type, ...] = (str, int, float)
    allowed += (date,) if name in _DATES else (Path,) if name == "path" else ()
    if len(options) > _MAX_OPTIONS:
        raise ConfigError(
            f"cannot filter {name!r} by {len(options)} values: give at most {_MAX_OPTIONS}"
        )
    for option in options:
        if isinstance(option, int) and abs(option) >= 1 << 63:
            raise ConfigError(f"cannot filter {name!r} by {option}: no number is so large")
        if not isinstance(option, allowed):
            raise ConfigError(
                f"cannot filter {name!r} by {type(option).__name__}: give a text, a number, "
                "true or false, or a list of them"
            )
    return options
