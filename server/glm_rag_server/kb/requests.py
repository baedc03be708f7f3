"""What `/kb` takes, as the OpenAPI page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_MOST_KEYS = 50
_MOST_VALUES = 10_000
_MOST_NESTED = 3
_MOST_TEXTS = 200


class _Taken(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _usable_filter(where: dict[str, Any] | None) -> dict[str, Any] | None:
    if where is not None:
        if len(where) > _MOST_KEYS:
            raise ValueError(f"at most {_MOST_KEYS} keys")
        if _count(where, _MOST_NESTED) > _MOST_VALUES:
            raise ValueError(f"at most {_MOST_VALUES} values")
    return where


def _count(value: Any, levels: int) -> int:
    """Values in a filter, each of which the store can take."""
    if isinstance(value, Mapping | list):
        if not levels:
            raise ValueError("nested too deeply")
        parts = [*value, *value.values()] if isinstance(value, Mapping) else value
        return sum(_count(part, levels - 1) for part in parts)
    if isinstance(value, str):
        _whole(value)
    return 1


def _whole(text: str) -> str:
    """JSON can hold half of a character, which nothing else can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair") from error
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def _asked(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: send a question")
    return text


Text = Annotated[str, AfterValidator(_whole)]
Question = Annotated[Text, AfterValidator(_asked)]
Filter = Annotated[dict[str, Any] | None, AfterValidator(_usable_filter)]


def _usable_templates(given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if _count(given, _MOST_NESTED) > _MOST_TEXTS:
        raise ValueError(f"at most {_MOST_TEXTS} texts")
    return given


Templates = Annotated[dict[str, dict[str, Any]], AfterValidator(_usable_templates)]


class NewKnowledgeBase(_Taken):
    """A name: up to 64 letters of any script, digits, spaces, dots, `-` and `_`."""

    name: Text = Field(max_length=200, examples=["handbook"])


class CopyRequest(_Taken):
    """What the copy is called."""

    to: Text = Field(max_length=200, description="a free name", examples=["handbook-2"])


class NewPrompt(_Taken):
    """Texts by language (`en`, `zh`) and key, as `GET .../prompt` gives them."""

    templates: Templates = Field(
        min_length=1,
        description="those that are not named stay as in the settings",
        examples=[{"en": {"page": " (page {page})"}}],
    )


class WarmRequest(_Taken):
    """How much is read ahead."""

    budget_mb: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="most disk space, with what is there already; default: 4000, or cache.disk_mb",
    )
    dry_run: bool = Field(False, description="read one passage and say what all would take")


class IngestRequest(_Taken):
    """What shall be read. Without `paths`: everything that was uploaded, as after a stop."""

    paths: list[Text] = Field(
        default=[],
        max_length=1000,
        description="files and folders on the server's disk, inside server.allowed_folders",
    )
    include: list[Text] = Field(default=[], max_length=50, description="only files like *.md")
    exclude: list[Text] = Field(default=[], max_length=50, description="not these")
    prune: bool = Field(False, description="remove documents whose files are gone")
    retry_failed: bool = Field(False, description="read again what failed for good")
    dry_run: bool = Field(False, description="store nothing; say what would be done")


class RebuildRequest(_Taken):
    """How much is made again."""

    embed: bool = Field(False, description="all vectors, too; takes long")


class SearchRequest(_Taken):
    """A question, and where to look."""

    query: Question = Field(max_length=20_000, examples=["How long is parental leave?"])
    k: int | None = Field(None, ge=1, le=100, description="passages; default: retrieval.k")
    filter: Filter = Field(
        None,
        description="metadata that passages must have; default: retrieval.filter",
        examples=[{"document_language": "en"}],
    )
    explain: bool = Field(False, description="also give every candidate and its places")


class CitedPlace(_Taken):
    """A citation of an earlier answer; other fields it has are not looked at."""

    model_config = ConfigDict(extra="ignore")

    source: Text
    start: int = Field(ge=0, lt=2**53)
    end: int = Field(ge=0, lt=2**53)
    quote: Text
    chunk_id: Text


class CitationsRequest(_Taken):
    """Citations to check."""

    citations: list[CitedPlace] = Field(max_length=1000)
