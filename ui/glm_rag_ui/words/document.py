"""Words of the page that shows a document."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {}
