"""What a reranker is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from langchain_core.documents import Document


class Reranker(Protocol):
    """Reads the question together with each passage, which costs more than comparing vectors."""

    def scores(self, question: str, documents: Sequence[Document]) -> list[float]:
        """One number for each passage; higher is better, comparable within one question only."""


def shown_text(document: Document) -> str:
    """A passage as a model reads it: with the header of the table it begins in."""
    header = str(document.metadata.get("table_header") or "")
    return f"{header}\n{document.page_content}" if header else document.page_content
