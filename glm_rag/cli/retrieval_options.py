"""Options that narrow down or change what a question finds, and the settings they become."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from glm_rag.config import load_config
from glm_rag.errors import ConfigError
from glm_rag.settings import Settings

# Added to `retrieval.threshold` by --strict, in logits (docs/retrieval.md has what it does).
STRICTER = 1.0

FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="KEY=VALUE",
        help="Only passages with this metadata; repeat for more. Also KEY>=VALUE, >, <=, <.",
    ),
]
PathOption = Annotated[
    list[str] | None,
    typer.Option("--path", metavar="PREFIX", help="Only documents of this file or folder."),
]
LanguageOption = Annotated[
    str | None, typer.Option("--language", metavar="en|zh", help="Only documents in this language.")
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="DATE", help="Only files changed on this day or later."),
]
ExpandOption = Annotated[
    Literal["none", "neighbours", "section"] | None,
    typer.Option("--expand", help="Show passages with what stands around them."),
]
RerankOption = Annotated[
    Literal["none", "cross-encoder", "likelihood"] | None,
    typer.Option("--rerank", help="What reads the first passages again to order them."),
]
AlwaysAnswerOption = Annotated[
    bool, typer.Option("--always-answer", help="Answer from whatever was found.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Answer only from stronger evidence than usual.")
]

_COMPARED = re.compile(r"([^<>=]+)(>=|<=|>|<|=)(.*)", re.DOTALL)
_OPERATORS = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}
_DATES = ("added_at", "mtime")


def settings_for_questions(
    config: Path | None,
    overrides: Mapping[str, Any],
    *,
    filters: Mapping[str, Any] | None,
    always_answer: bool = False,
    strict: bool = False,
) -> Settings:
    """Settings with what the options of `ask`, `chat` and `search` say."""
    if always_answer and strict:
        raise ConfigError("--always-answer and --strict contradict each other: give one")
    given = {**overrides, "retrieval.filter": filters}
    if always_answer or strict:
        given["retrieval.abstain"] = strict
    settings = load_config(config, overrides=given)
    if strict:
        given["retrieval.threshold"] = settings.retrieval.threshold + STRICTER
        settings = load_config(config, overrides=given)
    return settings


def filter_of(
    equal: Iterable[str] | None,
    paths: Iterable[str] | None,
    language: str | None,
    since: str | None,
) -> dict[str, Any] | None:
    """The filter that the options mean; None without any.

    Raises:
        ConfigError: a --filter that is no comparison, or two that cannot both be meant.
    """
    found: dict[str, Any] = {}
    for text in equal or ():
        _add(found, text)
    if paths:
        found["path"] = {"prefix": list(paths)}
    if language is not None:
        found["document_language"] = language
    if since is not None:
        _compare(found, "mtime", "gte", since)
    return found or None


def _add(found: dict[str, Any], text: str) -> None:
    match = _COMPARED.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"--filter {text!r} compares nothing: write it like --filter title=Leave")
    key, sign, value = (part.strip() for part in match.groups())
    if sign != "=":
        number = None if key in _DATES else _number(value)
        _compare(found, key, _OPERATORS[sign], value if number is None else number)
        return
    options = found.setdefault(key, [])
    if not isinstance(options, list):
        raise ConfigError(f"--filter {key} is compared in two ways: use = or >=, <= and so on")
    options.append(value)
    # The shell knows no types: a value counts as what is stored.
    if key not in _DATES and (number := _number(value)) is not None:
        options.append(number)


def _compare(found: dict[str, Any], key: str, operator: str, value: object) -> None:
    operators = found.setdefault(key, {})
    if not isinstance(operators, dict):
        raise ConfigError(f"--filter {key} is compared in two ways: use = or >=, <= and so on")
    operators[operator] = value


def _number(text: str) -> int | float | None:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
