"""Answers as JSON text and back, with everything a follow-up needs.

Written by one version and read by another: unknown keys are ignored, missing ones get their
defaults.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from glm_rag.errors import ConfigError
from glm_rag.types import Answer, ChatTurn, answers, generation
from glm_rag.types.plain import to_plain

_T = TypeVar("_T")
# JSON escapes them, UTF-8 cannot hold them.
_SURROGATE = re.compile("[\ud800-\udfff]")
# Their annotations are found by name; `Document` stands for itself.
_NAMES: dict[str, Any] = {**vars(generation), **vars(answers), "Document": "document"}


def answer_to_json(answer: Answer) -> str:
    """One line of JSON. What JSON does not know in metadata (tuples, NumPy) becomes what it does.

    Raises:
        ConfigError: metadata of a passage holds something that has no JSON form.
    """
    return dump(answer)


def answer_from_json(text: str) -> Answer:
    """The answer that `answer_to_json` or `glm-rag ask --json` wrote.

    Raises:
        ConfigError: it is no saved answer.
    """
    return load(Answer, text)


def turn_from_json(text: str) -> ChatTurn:
    """The message that `dump` wrote.

    Raises:
        ConfigError: it is none.
    """
    return load(ChatTurn, text)


def dump(value: object) -> str:
    """A value of an answer as one line of JSON."""
    try:
        text = json.dumps(to_plain(value, complete=True), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"metadata must be JSON values to be kept: {error}") from error
    return _SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def load(kind: type[_T], text: str) -> _T:
    """A dataclass of an answer from its JSON."""
    try:
        plain = json.loads(text)
        if not isinstance(plain, dict):
            raise TypeError(f"it holds {type(plain).__name__}")
        return _dataclass(kind, plain)
    except (ValueError, TypeError, RecursionError) as error:
        what = " ".join(str(error).split())[:120]
        raise ConfigError(f"this is no saved {kind.__name__.lower()}: {what}") from error


# ---------------------------------------------------------------- by annotation


def _dataclass(kind: type[_T], plain: Mapping[str, Any]) -> _T:
    return kind(**{name: read(plain) for name, read in _readers(cast("Any", kind)).items()})


@cache
def _readers(kind: type[Any]) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """For each field what reads it from the JSON of its dataclass."""
    hints = get_type_hints(kind, _NAMES, {"Document": Literal["document"]})
    return {field.name: _reader(field, hints[field.name]) for field in dataclasses.fields(kind)}


def _reader(field: dataclasses.Field[Any], hint: Any) -> Callable[[Mapping[str, Any]], Any]:
    def read(plain: Mapping[str, Any]) -> Any:
        if field.name in plain:
            return _value(hint, plain[field.name], field.name)
        if field.default is not dataclasses.MISSING:
            return field.default
        if field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
        return _empty(hint)

    return read


def _value(hint: Any, value: Any, name: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        if value is None and NoneType in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not NoneType)
        return _value(hint, value, name)
    if arguments == ("document",):
        return _document(_expect(value, dict, name))
    if origin is Literal:
        return _expect(value, str, name)
    if origin is tuple:
        return tuple(_value(arguments[0], item, name) for item in _expect(value, list, name))
    if dataclasses.is_dataclass(hint):
        return _dataclass(cast("Any", hint), _expect(value, dict, name))
    if origin is not None:  # a mapping of plain values
        return dict(_expect(value, dict, name))
    return _expect(value, (int, float) if hint is float else hint, name)


def _expect(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {type(value).__name__}")
    return value


def _empty(hint: Any) -> Any:
    """What stands for a field that an older version did not write."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        return None
    if arguments == ("document",):
        return _document({})
    if origin is Literal:
        return arguments[0]
    if dataclasses.is_dataclass(hint):
        return _dataclass(cast("Any", hint), {})
    if origin is tuple:
        return ()
    return {} if origin is not None else hint()


def _document(plain: Mapping[str, Any]) -> Any:
    from langchain_core.documents import Document

    text, metadata = plain.get("text", ""), plain.get("metadata", {})
    return Document(
        id=plain.get("id"),
        page_content=_expect(text, str, "text"),
        metadata=_expect(metadata, dict, "metadata"),
    )
