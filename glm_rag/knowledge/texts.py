"""Texts that belong to no file, as LangChain adds them, checked and made into documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glm_rag.errors import ConfigError
from glm_rag.knowledge import records
from glm_rag.types import Chunk, ExtractedDocument


@dataclass(frozen=True, slots=True)
class GivenText:
    """A text with its id and its metadata as JSON."""

    key: str
    text: str
    extra: str

    def document(self) -> ExtractedDocument:
        """The document `text:<id>` that it becomes."""
        return _text_document(self.key, self.text, json.loads(self.extra))

    def chunk(self) -> Chunk:
        """Its only chunk, which is all of it."""
        return Chunk(0, len(self.text), self.text)


def prepare_texts(
    texts: Iterable[str],
    metadatas: Sequence[Mapping[str, Any]] | None,
    ids: Sequence[str | None] | None,
) -> list[GivenText]:
    """As `add_texts` takes them; one without an id gets it from its content and metadata.

    Raises:
        ConfigError: numbers of texts, metadatas and ids differ; metadata is not JSON.
    """
    texts = [records.storable(text) for text in texts]
    metadatas = metadatas if metadatas is not None else [{}] * len(texts)
    given: Sequence[str | None] = ids if ids is not None else [None] * len(texts)
    if not len(texts) == len(metadatas) == len(given):
        raise ConfigError(
            f"{len(texts)} texts need as many metadatas and ids, got {len(metadatas)} "
            f"and {len(given)}"
        )
    extras = [_as_json(metadata) for metadata in metadatas]
    return [
        GivenText(key or _text_id(text, extra), text, extra)
        for key, text, extra in zip(given, texts, extras, strict=True)
    ]


def _text_document(key: str, text: str, metadata: Mapping[str, Any]) -> ExtractedDocument:
    data = text.encode()
    title = metadata.get("title") or metadata.get("source") or text.strip()[:80]
    return ExtractedDocument(
        source=f"text:{key}",
        title=str(title),
        text=text,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        mtime=0.0,
        media_type="text/plain",
        parser_version="",
    )


def _text_id(text: str, extra: str) -> str:
    return hashlib.sha256(f"{extra}\0{text}".encode()).hexdigest()[:32]


def _as_json(metadata: Mapping[str, Any]) -> str:
    try:
        # NaN is no JSON: SQLite would refuse every search with a filter because of it.
        return records.storable(json.dumps(metadata, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"metadata must be JSON values: {error}") from error
