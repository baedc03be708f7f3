"""Answers to keep, and conversations of them."""

from __future__ import annotations

from dataclasses import replace

from langchain_core.documents import Document

from glm_rag.types import Answer, ChatTurn, Citation, PackedContext, Passage, ScoredDocument, Usage

TEXT = "Parental leave is 26 weeks."
DOCUMENT = Document(id="c", page_content=TEXT, metadata={"source": "file:///a", "parts": [1]})
PASSAGE = Passage(1, DOCUMENT, TEXT, 7)
CITATION = Citation(1, 0, 27, "c", "file:///a", "Leave", 3, 0, 27, TEXT, "verbatim")


def answer_to(question: str, before: Answer | None = None, text: str = TEXT) -> Answer:
    asked = ChatTurn("user", question, prompt=f"{TEXT}\n{question}", passages=(PASSAGE,))
    said = ChatTurn("assistant", text, (1, 2, 3))
    return Answer(
        text=text,
        citations=(CITATION,),
        context=PackedContext((PASSAGE,), 7, 100, 0),
        usage=Usage(9, 8),
        timings={"total": 1.5},
        finish_reason="stop",
        abstained=False,
        question=question,
        messages=(*(before.messages if before else ()), asked, said),
        nearest=(ScoredDocument(DOCUMENT, 0.5, "dense"),),
    )


def talk(store, *questions, profile="me", kb="handbook"):
    """A conversation of finished turns; returns its id."""
    made = store.start(profile, kb)
    before = None
    for question in questions:
        turn = store.add_turn(profile, made.id, question)
        before = answer_to(question, before)
        store.save_turn(profile, replace(turn, text=before.text, answer=before, status="done"))
    return made.id
