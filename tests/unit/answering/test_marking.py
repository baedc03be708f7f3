"""Marks of a stream: told sentence by sentence, and in the end those of the whole answer."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from scripted_assistant import QUESTION, ListRetriever, assistant, document

from glm_rag.assistant import Assistant
from glm_rag.citations import align
from glm_rag.grounding import REFUSAL_SENTENCE, is_refusal
from glm_rag.marking import Marker
from glm_rag.types import Passage
from glm_rag.unsupported import find_unsupported

TEXT = (
    "Parental leave lasts 26 weeks and is open to every parent. Sushi is free on Fridays.\n"
    "育儿假为二十六周，其中二十周全薪。申请须至少提前八周提交给人事部。"
)
SENTENCES = (
    "Parental leave lasts 26 weeks and is open to every parent.",
    "Sushi is free on Fridays!",
    "育儿假为二十六周，其中二十周全薪。",
    "申请须至少提前八周提交给人事部。”",
    "It lasts 30 weeks.",
    "3.",
    "3. Sushi is free on Fridays",
    "- Parental leave lasts 26 weeks",
    "12) May 2021.",
    "Is it open to every parent?",
    "See [1], [2].",
    "e.g. Mr. Smith",
    "The moon is 3.14 times",
    *REFUSAL_SENTENCE.values(),
    "The passages do not answer",
)
GAPS = ("", " ", "\n", "\n\n", " \n - ", "\n2. ", "”", "...")
PASSAGES = [
    Passage(1, Document(page_content=TEXT, metadata={"title": "Handbook"}), TEXT, 1),
    Passage(2, Document(page_content="Sushi.", metadata={"title": "Food"}), "Sushi.", 1),
]

stitched = st.lists(st.tuples(st.sampled_from(SENTENCES), st.sampled_from(GAPS)), max_size=7).map(
    lambda parts: "".join(sentence + gap for sentence, gap in parts)
)
answers = st.one_of(stitched, st.text(alphabet="a1B. \n?!。”)-、[]x周", max_size=60), st.text())


def cut(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


@given(answers, st.lists(st.integers(0, 400), max_size=40))
def test_marks_are_those_of_the_whole_text_however_it_is_cut(text, places):
    marker = Marker(PASSAGES, QUESTION)
    for piece in cut(text, places):
        marker.push(piece)
    marker.finish(text)
    citations = align(text, PASSAGES, question=QUESTION)
    assert tuple(marker.citations) == citations
    assert tuple(marker.unsupported) == find_unsupported(
        text, PASSAGES, citations, question=QUESTION
    )


def test_a_list_number_is_a_claim_where_it_is_the_whole_answer():
    text = "The total is 12.\n\n12."
    passages = [Passage(1, Document(page_content=text), text, 1)]
    for answer in ("12.", f"Twelve. {text}"):
        marker = Marker(passages, "")
        marker.push(answer)
        marker.finish(answer)
        assert tuple(marker.citations) == align(answer, passages)


@given(answers)
def test_a_mark_once_told_never_changes(text):
    marker = Marker(PASSAGES, QUESTION)
    told = []
    for char in text:
        marker.push(char)
        assert marker.citations[: len(told)] == told
        told = list(marker.citations)
    marker.finish(text)
    assert marker.citations[: len(told)] == told


@given(answers)
def test_a_refusal_has_no_mark_while_it_is_streamed(text):
    marker = Marker(PASSAGES, QUESTION)
    for char in text:
        marker.push(char)
    if is_refusal(text):
        assert not marker.citations
        assert not marker.unsupported


def test_a_sentence_is_marked_as_soon_as_the_next_one_begins():
    marker = Marker(PASSAGES, QUESTION)
    marker.push(f"{SENTENCES[0]} ")
    assert not marker.citations
    marker.push("S")
    assert [c.answer_end for c in marker.citations] == [len(SENTENCES[0])]
    marker.push("ushi is free on Mondays for 99 people. A")
    assert [(u.kind, u.start) for u in marker.unsupported] == [("sentence", 59), ("number", 88)]


def test_a_mark_carries_the_number_of_its_own_passage():
    marker = Marker([Passage(7, PASSAGES[0].document, TEXT, 1)], QUESTION)
    marker.finish(SENTENCES[0])
    assert [c.index for c in marker.citations] == [7]


# ---------------------------------------------------------------- through the assistant


REPLY = "Parental leave lasts 26 weeks. Nobody knows the 99 reasons. Sushi is free on Fridays."


def told(deltas) -> tuple[tuple, tuple]:
    return (
        tuple(c for delta in deltas for c in delta.citations),
        tuple(u for delta in deltas for u in delta.unsupported),
    )


async def test_the_pieces_of_a_stream_hold_the_marks_of_the_answer():
    made, _ = assistant(REPLY)
    for deltas in (
        list(made.stream(QUESTION)),
        [delta async for delta in made.astream(QUESTION)],
    ):
        answer = deltas[-1].answer
        assert len(answer.citations) == 2
        assert told(deltas) == (answer.citations, answer.unsupported)
        # The first sentence is marked long before the end, by the piece that goes on behind it.
        first = next(n for n, delta in enumerate(deltas) if delta.citations)
        before = "".join(delta.text for delta in deltas[:first])
        assert before == "Parental leave lasts 26 weeks. "


@pytest.mark.parametrize("reply", [*REFUSAL_SENTENCE.values(), f"{REFUSAL_SENTENCE['en']} {REPLY}"])
def test_a_refusal_by_the_model_is_streamed_without_marks(reply):
    made, _ = assistant(reply)
    deltas = list(made.stream(QUESTION))
    assert deltas[-1].answer.abstained
    assert told(deltas) == ((), ())


def test_an_answer_declined_beforehand_has_no_marks():
    made, _ = assistant(documents=[document(evidence=-1.0)])
    assert told(list(made.stream(QUESTION))) == ((), ())


def test_after_a_loop_the_answer_holds_the_marks_of_what_is_left():
    made, _ = assistant("Sushi is free on Fridays. " * 30)
    *_, last = made.stream(QUESTION)
    assert last.answer.finish_reason == "repetition"
    assert last.answer.citations == align(
        last.answer.text, last.answer.context.passages, question=QUESTION
    )


def test_marks_come_with_the_chunks_of_a_foreign_model():
    model = GenericFakeChatModel(messages=iter([AIMessage(REPLY)]))
    deltas = list(Assistant(ListRetriever(documents=[document()]), model).stream(QUESTION))
    assert told(deltas)[0] == deltas[-1].answer.citations != ()
    assert deltas[-1].answer.timings["cite"] >= 0


async def test_marks_are_not_looked_for_in_the_event_loop(monkeypatch):
    where = set()
    push = Marker.push

    def noting(self, piece):
        where.add(threading.current_thread())
        push(self, piece)

    monkeypatch.setattr(Marker, "push", noting)
    made, _ = assistant(REPLY)
    assert [delta async for delta in made.astream(QUESTION)]
    assert where
    assert threading.current_thread() not in where
