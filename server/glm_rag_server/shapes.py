"""Small parts that several responses share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glm_rag.types import Usage


def finish_reason(reason: str) -> str:
    """OpenAI's word for why an answer ended: of a loop it has none, the extension does."""
    return "length" if reason == "length" else "stop"


def usage_body(usage: Usage) -> dict[str, Any]:
    """Token counts as OpenAI names them."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
