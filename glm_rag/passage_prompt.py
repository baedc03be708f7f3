"""The prompt of a question that is answered from one passage, as the assistant makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glm_rag.grounding import REFUSAL_SENTENCE
from glm_rag.messages import to_messages
from glm_rag.prompting import build_turns, render_passages
from glm_rag.templates import TEMPLATES, Templates
from glm_rag.types import Language, Passage

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from glm_rag.chat_models import ChatGLM2


def passage_prompt(
    llm: ChatGLM2,
    question: str,
    document: Document,
    language: Language,
    templates: Templates = TEMPLATES,
) -> list[int]:
    """Ids of the whole prompt; everything before the question is the same for every question.

    Args:
        language: of the words around the passage: the question's.
        templates: those words, if not the ones built in.
    """
    template = templates[language]
    block = render_passages([Passage(1, document, document.page_content, 0)], template)
    refusal = REFUSAL_SENTENCE[language]
    turns = build_turns(question, block, template=template, refusal=refusal)
    return llm.prompt_ids(to_messages(turns))
