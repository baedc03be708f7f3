"""Words of the retrieval test."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {}
