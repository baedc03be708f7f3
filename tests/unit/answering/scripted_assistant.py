"""An assistant whose model recites, over a list of documents."""

from __future__ import annotations

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from fakes import ScriptedEngine
from glm_rag.assistant import Assistant
from glm_rag.chat_models import ChatGLM2
from glm_rag.settings import RetrievalSettings

TEXT = "Parental leave lasts 26 weeks and is open to every parent. Sushi is free on Fridays."
QUESTION = "How long is parental leave?"
REPLY = "Parental leave lasts 26 weeks."


class ListRetriever(BaseRetriever):
    """Finds the same documents for every question and remembers the questions."""

    documents: list[Document]
    questions: list[str] = Field(default_factory=list)

    def _get_relevant_documents(self, query, *, run_manager):
        self.questions.append(query)
        return self.documents


def document(text: str = TEXT, start: int = 100, **metadata) -> Document:
    metadata = {
        "source": "file:///h.md",
        "title": "Handbook",
        "page": 2,
        "start": start,
        "end": start + len(text),
        "score": 0.9,
        **metadata,
    }
    return Document(id=f"c{start}", page_content=text, metadata=metadata)


def assistant(*replies: str, documents=None, packing=None, abstain=True, **engine):
    documents = [document()] if documents is None else documents
    scripted = ScriptedEngine(list(replies or (REPLY,)), **engine)
    made = Assistant(
        ListRetriever(documents=documents),
        ChatGLM2(engine=scripted, max_tokens=400),
        packing=packing,
        retrieval=RetrievalSettings(abstain=abstain),
    )
    return made, scripted
