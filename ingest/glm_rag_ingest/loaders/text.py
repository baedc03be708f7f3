"""Plain text in any common encoding."""

from __future__ import annotations

from glm_rag_ingest.loaders.base import Extracted, clean_text, failure, garbled_share
from glm_rag_ingest.loaders.encoding import decode, lost_characters

VERSION = "text/2"
MEDIA_TYPE = "text/plain"

_MOST_GARBLED = 0.1


def extract(data: bytes) -> Extracted:
    """Decode and clean. Raises `DocumentError` for binary data under a text name."""
    text = decode(data)
    if garbled_share(text) > _MOST_GARBLED:
        raise failure("corrupt", "binary data, not text")
    return Extracted(clean_text(text), warnings=lost_characters(text))
