"""Questions for an empty chat, drawn from what the documents say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glm_rag.types import Language

if TYPE_CHECKING:
    from glm_rag.knowledge.base import KnowledgeBase


def suggest_questions(
    kb: KnowledgeBase, language: Language, count: int = 4, *, seed: int = 0
) -> list[str]:
    """At most `count` short questions that documents of the knowledge base answer."""
    return []
