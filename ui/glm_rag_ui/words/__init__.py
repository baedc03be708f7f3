"""The words of the pages, (English, Chinese) by key: one module for each page."""

from __future__ import annotations

from glm_rag_ui.words import chat, common, document, knowledge, retrieval, settings

# English text of the form "one|many" is chosen by the argument `n`.
TEXTS: dict[str, tuple[str, str]] = {
    **common.TEXTS,
    **chat.TEXTS,
    **document.TEXTS,
    **knowledge.TEXTS,
    **retrieval.TEXTS,
    **settings.TEXTS,
}
