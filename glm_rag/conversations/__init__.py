"""Conversations of the page, kept over reloads and restarts: their store, JSON and Markdown."""

from glm_rag.conversations.answers import answer_from_json, answer_to_json
from glm_rag.conversations.markdown import to_markdown
from glm_rag.conversations.store import FILE_NAME as CONVERSATIONS_FILE
from glm_rag.conversations.store import ConversationStore

__all__ = [
    "CONVERSATIONS_FILE",
    "ConversationStore",
    "answer_from_json",
    "answer_to_json",
    "to_markdown",
]
