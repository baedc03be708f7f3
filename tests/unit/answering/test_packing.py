"""Laws of packing: whole, exact, best first, nothing twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from glm_rag.packing import pack, plain_block
from glm_rag.types import ScoredDocument

TEXT = "One two three. Four five six. Seven eight nine. Ten eleven twelve. " * 3


def words(text: str) -> int:
    return len(text.split())


def chunk(start: int, end: int, source: str = "a", page: int | None = None) -> Document:
    metadata = {"source": source, "start": start, "end": end, "page": page}
    text = TEXT if source == "a" else TEXT.replace("e", source)
    return Document(id=f"{source}{start}", page_content=text[start:end], metadata=metadata)


def scored(document: Document, score: float) -> ScoredDocument:
    return ScoredDocument(document, score, "test")


def pack_words(documents, budget=1000, **options):
    options = {"max_passages": 10, "relative_score": 0.0} | options
    return pack(documents, count_tokens=words, budget=budget, **options)


def test_best_comes_first_whatever_order_they_were_found_in():
    packed = pack_words([scored(chunk(0, 14), 0.5), scored(chunk(0, 14, "b"), 0.9)])
    assert [p.document.id for p in packed.passages] == ["b0", "a0"]
    assert [p.index for p in packed.passages] == [1, 2]


def test_without_scores_the_given_order_is_kept():
    packed = pack_words([chunk(0, 14), chunk(0, 14, "b")], relative_score=1.0)
    assert [p.document.id for p in packed.passages] == ["a0", "b0"]


def test_scores_in_the_metadata_count():
    low, high = chunk(0, 14), chunk(0, 14, "b")
    low.metadata["score"], high.metadata["score"] = 0.5, 1.0
    packed = pack_words([low, high], relative_score=0.9)
    assert [p.document.id for p in packed.passages] == ["b0"]
    assert packed.num_dropped == 1


def test_a_passage_enters_whole_or_not_at_all():
    packed = pack_words([chunk(0, 14), chunk(0, 100, "b"), chunk(0, 14, "c")], budget=8)
    assert [p.document.id for p in packed.passages] == ["a0", "c0"]
    assert not any(p.truncated for p in packed.passages)
    assert packed.num_dropped == 1


def test_counts_are_those_of_the_rendered_block():
    packed = pack_words([chunk(0, 14), chunk(0, 14, "b")])
    assert packed.num_tokens == words(plain_block(packed.passages)) == 8
    assert [p.num_tokens for p in packed.passages] == [4, 4]


def test_only_the_best_is_cut_and_at_a_sentence_end():
    packed = pack_words([chunk(0, len(TEXT) - 1), chunk(0, 100, "b")], budget=8)
    (passage,) = packed.passages
    assert passage.truncated
    assert passage.text == "One two three. Four five six."
    assert packed.num_tokens == 7
    assert passage.document.page_content == TEXT[:-1]


def test_a_text_without_sentence_ends_is_cut_anywhere():
    document = Document(page_content="word " * 100)
    (passage,) = pack_words([document], budget=5).passages
    assert words(passage.text) == 4


def test_nothing_enters_a_budget_of_nothing():
    packed = pack_words([chunk(0, 14)], budget=0)
    assert packed.passages == ()
    assert (packed.num_tokens, packed.num_dropped) == (0, 1)


def test_repeated_content_counts_once():
    twice = Document(page_content="One  TWO three.", metadata={"source": "copy"})
    packed = pack_words([chunk(0, 14), twice])
    assert len(packed.passages) == 1
    assert packed.num_dropped == 0


def test_number_of_passages_is_bounded():
    packed = pack_words([chunk(0, 14), chunk(0, 14, "b"), chunk(0, 14, "c")], max_passages=2)
    assert len(packed.passages) == 2
    assert packed.num_dropped == 1


def test_a_neighbour_joins_a_passage_even_when_no_more_passages_may_enter():
    packed = pack_words([chunk(15, 29), chunk(29, 48)], max_passages=1)
    (passage,) = packed.passages
    assert passage.text == TEXT[15:48]
    assert packed.num_dropped == 0


def test_overlap_is_not_repeated_and_the_better_chunk_lends_its_id():
    packed = pack_words([scored(chunk(10, 50, page=2), 0.9), scored(chunk(0, 30, page=1), 0.8)])
    (passage,) = packed.passages
    assert passage.text == TEXT[0:50]
    assert passage.document.id == "a10"
    metadata = passage.document.metadata
    assert (metadata["start"], metadata["end"]) == (0, 50)
    assert [(part["id"], part["page"]) for part in metadata["parts"]] == [("a0", 1), ("a10", 2)]


def test_a_chunk_between_two_passages_joins_all_three():
    packed = pack_words([chunk(0, 30), chunk(60, 90), chunk(30, 60)])
    (passage,) = packed.passages
    assert passage.text == TEXT[0:90]
    assert passage.document.id == "a0"
    assert len(passage.document.metadata["parts"]) == 3


@pytest.mark.parametrize(
    "other",
    [
        chunk(31, 60),  # a gap: what stands in it is not known
        chunk(20, 50, "b"),  # another document
        Document(page_content="xxxxx", metadata={"source": "a", "start": 28, "end": 33}),
        Document(page_content="no span", metadata={"source": "a", "start": 20}),
    ],
)
def test_what_cannot_be_joined_exactly_stays_apart(other):
    packed = pack_words([chunk(0, 30), other])
    assert [p.text for p in packed.passages] == [TEXT[0:30], other.page_content]


@given(
    spans=st.lists(
        st.tuples(st.integers(0, 150), st.integers(1, 60), st.sampled_from("ab")), max_size=8
    ),
    budget=st.integers(0, 60),
    max_passages=st.integers(1, 5),
)
def test_passages_stay_true_to_their_document_and_within_budget(spans, budget, max_passages):
    documents = [chunk(s, min(s + n, len(TEXT)), source) for s, n, source in spans]
    packed = pack_words(documents, budget=budget, max_passages=max_passages)
    assert len(packed.passages) <= max_passages
    assert packed.num_tokens <= budget
    assert packed.num_tokens == (words(plain_block(packed.passages)) if packed.passages else 0)
    for passage in packed.passages:
        metadata = passage.document.metadata
        text = TEXT if metadata["source"] == "a" else TEXT.replace("e", "b")
        assert passage.document.page_content == text[metadata["start"] : metadata["end"]]
        assert passage.document.page_content.startswith(passage.text)
        assert passage.truncated == (passage.text != passage.document.page_content)
