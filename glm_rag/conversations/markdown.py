"""A conversation as Markdown: questions, answers with numbered sources, nothing to execute."""

from __future__ import annotations

from glm_rag.types import Conversation, Language


def to_markdown(conversation: Conversation, language: Language) -> str:
    """The conversation as one Markdown document."""
    return ""
