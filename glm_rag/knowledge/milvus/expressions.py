"""Filters by metadata in Milvus' language; what they mean is in `knowledge.filters`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from glm_rag.knowledge.filters import AnyOf, conditions
from glm_rag.knowledge.milvus.client import quoted

NOTHING = 'pk == ""'
_EVERYTHING = 'pk != ""'
_TEXTS = frozenset(("title", "container", "content_hash", "language", "document_language"))
_WHOLE = frozenset(("page", "start", "end", "chunk_index"))
_NUMBERS = _WHOLE | {"added_at", "mtime"}
# What stands where SQL has NULL.
_ABSENT = {"container": 'container == ""', "page": "page < 0"}
# Of a text without a file: known of its document where its own metadata does not say.
_OF_DOCUMENT = {"document_language": "", "added_at": "", "mtime": "mtime == 0"}


def where_clause(where: Mapping[str, Any], originals: Callable[[str], Iterable[str]]) -> str:
    """The chunks that a filter lets through.

    Args:
        originals: from an expression over `source` to the sources of the documents whose copies
            it lets through.

    Raises:
        ConfigError: a key, operator or value that metadata cannot be compared with.
    """
    of_files, of_texts = ["is_text == false"], ["is_text == true"]
    for condition in conditions(where):
        of_files.append(_of_file(condition.name, condition.any_of, originals))
        of_texts.append(_of_text(condition.name, condition.any_of))
    return f"(({' and '.join(of_files)}) or ({' and '.join(of_texts)}))"


def _of_file(name: str, any_of: AnyOf, originals: Callable[[str], Iterable[str]]) -> str:
    if name == "source":
        own = _tests("source", any_of)
        copied = list(originals(own)) if own not in (NOTHING, _EVERYTHING) else []
        also = "".join(f" or source == {quoted(source)}" for source in copied)
        return f"({own}{also})"
    if name not in _TEXTS | _NUMBERS:
        return _EVERYTHING if _asks_for_absence(any_of) else NOTHING
    absent = _ABSENT.get(name)
    if _asks_for_absence(any_of):
        return absent or NOTHING
    found = _tests(name, any_of)
    return found if absent is None else f"({found} and not ({absent}))"


def _of_text(name: str, any_of: AnyOf) -> str:
    place = f"extra[{quoted(name)}]"
    given = f"exists {place}"
    missing = _OF_DOCUMENT.get(name)
    if _asks_for_absence(any_of):
        if missing == "":
            return NOTHING
        return f"(not ({given}) and {missing})" if missing else f"(not ({given}))"
    test = f"({given} and {_in_json(place, any_of)})"
    if missing is None:
        return test
    known = _tests(name, any_of)
    known = f"{known} and not ({missing})" if missing else known
    return f"({test} or (not ({given}) and {known}))"


def _asks_for_absence(any_of: AnyOf) -> bool:
    return any_of == ((("null", None),),)


def _tests(name: str, any_of: AnyOf) -> str:
    """Tests of a field: values of another kind than its own never hold."""
    values: list[str] = []
    others: list[str] = []
    for together in any_of:
        literals = [_comparison(name, operator, value) for operator, value in together]
        if None in literals:
            continue
        if len(literals) == 1 and literals[0] and literals[0][0] == "==":
            values.append(literals[0][1])
        else:
            held = " and ".join(f"{name} {pair[0]} {pair[1]}" for pair in literals if pair)
            others.append(f"({held})")
    if values:
        others.insert(0, f"{name} in [{', '.join(values)}]")
    return f"({' or '.join(others)})" if others else NOTHING


def _comparison(name: str, operator: str, value: Any) -> tuple[str, str] | None:
    """Operator and literal for a field, None where nothing can hold."""
    if name not in _NUMBERS:
        return (operator, quoted(value)) if isinstance(value, str) else None
    try:
        number = float(value)  # as SQLite compares a text with a column of numbers
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if name not in _WHOLE:
        return operator, repr(number)
    # Milvus compares whole numbers with whole ones only.
    whole = {">": math.floor(number) + 1, ">=": math.ceil(number)}
    whole |= {"<": math.ceil(number) - 1, "<=": math.floor(number)}
    if operator == "==":
        return (operator, str(int(number))) if number.is_integer() else None
    bound = max(-(1 << 62), min(1 << 62, whole[operator]))
    return f"{operator[0]}=", str(bound)


def _number(value: float) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return str(int(value))
    return repr(value + 0)


def _in_json(place: str, any_of: AnyOf) -> str:
    """Tests of a value in JSON: Milvus compares texts with texts and numbers with numbers."""
    tests = []
    for together in any_of:
        held = [_json_test(place, operator, value) for operator, value in together]
        if all(held):
            tests.append(f"({' and '.join(held)})")
    return f"({' or '.join(tests)})" if tests else NOTHING


def _json_test(place: str, operator: str, value: Any) -> str:
    if isinstance(value, str):
        return f"{place} {operator} {quoted(value)}"
    number = _number(value)
    if number is None:
        return ""
    if operator == "==" and value in (0, 1):  # SQLite takes true for 1
        return f"({place} == {number} or {place} == {'true' if value else 'false'})"
    return f"{place} {operator} {number}"
