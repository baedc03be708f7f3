"""Source code and configuration, as it is; the language is in the media type."""

from __future__ import annotations

import re

from glm_rag_ingest.loaders.base import Extracted, clean_text, failure, garbled_share
from glm_rag_ingest.loaders.encoding import decode, lost_characters
from glm_rag_ingest.loaders.html import declared_charset

VERSION = "source_code/1"
MEDIA_TYPE = "text/x-source"

_MOST_GARBLED = 0.1
# PEP 263; editors of other languages read the same cookie.
_COOKIE = re.compile(rb"\A[^\n]*?(?:\n[^\n]*?)?coding[:=][ \t]*([-\w.]+)")
_HEAD_BYTES = 512


def extract(data: bytes) -> Extracted:
    """Decode and clean. Raises `DocumentError` for binary data under a name of source code."""
    cookie = _COOKIE.match(data[:_HEAD_BYTES])
    declared = cookie.group(1).decode("ascii", "replace") if cookie else declared_charset(data)
    text = decode(data, declared)
    if garbled_share(text) > _MOST_GARBLED:
        raise failure("corrupt", "binary data, not source code")
    return Extracted(clean_text(text), warnings=lost_characters(text))
