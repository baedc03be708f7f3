"""How many tokens a text has for an embedder, also for one that cannot say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

# What common embedders read at least; most say more.
_DEFAULT_MAX_TOKENS = 512
_CHARACTERS_PER_TOKEN = 3
_FIRST_WIDE = "\u2e80"  # from here on scripts need about one token per character


def token_counter(embeddings: Embeddings) -> tuple[Callable[[str], int], int]:
    """The embedder's own counter and limit, or a careful estimate and 512."""
    count = getattr(embeddings, "count_tokens", None)
    max_tokens = getattr(embeddings, "max_tokens", None)
    return (
        count if callable(count) else estimated_tokens,
        max_tokens if isinstance(max_tokens, int) else _DEFAULT_MAX_TOKENS,
    )


def estimated_tokens(text: str) -> int:
    """One token per wide character, one per three others, rounded up."""
    wide = sum(char >= _FIRST_WIDE for char in text)
    return wide - (wide - len(text)) // _CHARACTERS_PER_TOKEN
