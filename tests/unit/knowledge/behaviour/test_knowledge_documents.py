"""Documents in, documents out: offsets, ids, replacement, removal."""

import dataclasses

import numpy as np
import pytest

from glm_rag.embeddings import TokenEmbeddings
from glm_rag.errors import KnowledgeBaseError
from glm_rag.types import Chunk, IngestFailure, PageSpan

TEXT = "Parental leave is sixteen weeks. 育儿假为十六周。 The end."


def test_what_is_put_comes_back(kb, make):
    document, chunks = make("file:///a.txt", TEXT)
    document = dataclasses.replace(
        document, pages=(PageSpan(1, 0, 10),), warnings=("page 2 has no text",)
    )
    chunks[1] = dataclasses.replace(chunks[1], page=3, headings=("Rules", "Leave"))
    assert kb.put_document(document, chunks) == "added"
    info = kb.get_document("file:///a.txt")
    assert (info.title, info.sha256, info.size, info.mtime) == (
        "file:///a.txt",
        document.sha256,
        document.size,
        1.5,
    )
    assert (info.num_chunks, info.num_characters) == (len(chunks), len(TEXT))
    assert (info.language, info.warnings) == ("zh", ("page 2 has no text",))
    assert kb.documents() == [info]
    assert kb.get_text("file:///a.txt") == TEXT
    stored = kb.get_chunks("file:///a.txt")
    assert [d.page_content for d in stored] == [c.text for c in chunks]
    assert [d.id for d in stored] == [c.id_for("file:///a.txt") for c in chunks]
    assert stored[1].metadata == {
        "source": "file:///a.txt",
        "title": "file:///a.txt",
        "page": 3,
        "headings": ["Rules", "Leave"],
        "start": 20,
        "end": 40,
        "chunk_index": 1,
        "content_hash": chunks[1].content_hash,
        "language": "zh",
    }


def test_every_stored_offset_opens_to_the_chunk(kb, make):
    kb.put_document(*make("a", TEXT))
    for chunk in kb.get_chunks("a"):
        start, end = chunk.metadata["start"], chunk.metadata["end"]
        assert kb.get_text("a")[start:end] == chunk.page_content
    assert kb.verify().findings == ()


def test_a_chunk_that_is_not_its_offsets_is_refused(kb, make):
    document, chunks = make("a", TEXT)
    with pytest.raises(KnowledgeBaseError, match="not the chunk's text"):
        kb.put_document(document, [*chunks, Chunk(0, 5, "wrong")])
    assert kb.documents() == []


def test_the_same_chunk_twice_is_refused(kb, make):
    document, chunks = make("a", TEXT)
    with pytest.raises(KnowledgeBaseError, match="same start and text"):
        kb.put_document(document, [*chunks, chunks[0]])


def test_putting_again_replaces_and_keeps_the_ids(kb, make):
    kb.put_document(*make("a", TEXT))
    before = [d.id for d in kb.get_chunks("a")]
    assert kb.put_document(*make("a", TEXT)) == "updated"
    assert [d.id for d in kb.get_chunks("a")] == before
    assert kb.info().num_chunks == len(before)
    assert len(kb.similarity_search("x", k=100)) == len(before)


def test_an_edit_leaves_nothing_of_the_old_text(kb, make):
    kb.put_document(*make("a", "old words here and more of them"))
    kb.similarity_search("x")
    kb.put_document(*make("a", "new content"))
    assert [d.page_content for d in kb.similarity_search("x", k=100)] == ["new content"]
    found = kb.candidates(np.ones(8), ["old", "words", "new"], limit=5)
    assert [c.document.page_content for c in found.candidates] == ["new content"]
    assert found.document_frequency == {"new": 1}


def test_removing_takes_the_document_with_all_its_traces(kb, make):
    kb.put_document(*make("a", TEXT))
    kb.put_document(*make("b", "another"))
    assert kb.remove("a") is True
    assert kb.remove("a") is False
    assert [d.source for d in kb.documents()] == ["b"]
    assert kb.get_chunks("a") == []
    assert [d.page_content for d in kb.similarity_search("x", k=100)] == ["another"]
    found = kb.candidates(np.ones(8), ["leave", "another"], limit=9)
    assert (found.num_chunks, found.document_frequency) == (1, {"another": 1})


def test_lone_surrogates_and_nul_do_not_move_offsets(kb, make):
    text = "a\ud800b\0c " * 10
    kb.put_document(*make("a", text))
    assert kb.get_text("a") == text.replace("\ud800", "\ufffd")
    assert kb.verify().findings == ()


def test_a_document_without_chunks_is_kept(kb, make):
    document, _ = make("empty", "")
    kb.put_document(document, [])
    assert kb.get_document("empty").num_chunks == 0


def test_given_vectors_are_used_and_normalised(kb, make):
    document, chunks = make("a", "short")
    kb.put_document(document, chunks, np.full((1, 8), 3.0))
    ((_, score),) = kb.similarity_search_with_score("x")
    assert -1 <= score <= 1


@pytest.mark.parametrize(
    ("vectors", "message"),
    [(np.ones((2, 8)), "need 1 vectors"), (np.full((1, 8), np.nan), "not numbers")],
)
def test_vectors_that_do_not_fit_are_refused(kb, make, vectors, message):
    with pytest.raises(KnowledgeBaseError, match=message):
        kb.put_document(*make("a", "short"), vectors)
    assert kb.documents() == []


class CountingEmbeddings(TokenEmbeddings):
    """Counts characters as tokens and remembers what it was given."""

    name, dimension, max_tokens = "counting", 2, 30

    def __init__(self):
        self.seen = []

    def count_tokens(self, text):
        return len(text)

    def embed_documents(self, texts):
        self.seen += texts
        return [[1.0, 0.0]] * len(texts)

    def embed_query(self, text):
        return [1.0, 0.0]


def test_headings_are_embedded_as_far_as_they_fit(open_kb, make):
    embeddings = CountingEmbeddings()
    kb = open_kb("counting", embeddings=embeddings)
    document, (chunk,) = make("a", "twenty characters!!!")
    for headings in [("A", "B"), ("A very long heading", "B"), ("A very long heading",)]:
        kb.put_document(document, [dataclasses.replace(chunk, headings=headings)])
    assert embeddings.seen == [
        "A > B\ntwenty characters!!!",
        "B\ntwenty characters!!!",
        "twenty characters!!!",
    ]


def test_headings_are_searched_by_word(kb, make):
    document, (chunk,) = make("a", "sixteen weeks")
    kb.put_document(document, [dataclasses.replace(chunk, headings=("Parental leave",))])
    found = kb.candidates(np.ones(8), ["parental"], limit=1)
    assert found.candidates[0].term_counts == {"parental": 1}


def test_touch_changes_time_and_size_only(kb, make):
    kb.put_document(*make("a", TEXT))
    change = kb.change()
    kb.touch("a", size=7, mtime=9.0)
    info = kb.get_document("a")
    assert (info.size, info.mtime) == (7, 9.0)
    assert kb.change() == change


def test_failures_are_kept_replaced_and_cleared(kb, make):
    kb.record_failure(IngestFailure("a", "load", "corrupt: x", permanent=True))
    kb.record_failure(IngestFailure("a", "load", "corrupt: y", permanent=False))
    kb.record_failure(IngestFailure("b", "load", "empty", permanent=True))
    assert kb.failures() == [
        IngestFailure("a", "load", "corrupt: y", permanent=False),
        IngestFailure("b", "load", "empty", permanent=True),
    ]
    kb.put_document(*make("a", TEXT))
    kb.clear_failure("b")
    assert kb.failures() == []


def test_info_counts_what_is_there(kb, make, home):
    kb.put_document(*make("a", TEXT))
    kb.put_document(*make("b", "English only."))
    info = kb.info()
    assert info.name == "kb"
    assert (info.num_documents, info.num_chunks, info.num_failures) == (2, 4, 0)
    assert (info.embeddings, info.dimension) == ("hash", 8)
    assert info.languages == {"en": 1, "zh": 1}


def test_the_text_of_an_unknown_document_gives_a_clear_line(kb):
    with pytest.raises(KnowledgeBaseError, match="has no document nowhere"):
        kb.get_text("nowhere")
    assert kb.get_document("nowhere") is None
