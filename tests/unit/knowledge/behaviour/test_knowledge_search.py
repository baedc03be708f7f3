"""The LangChain side: texts, filters, languages, retrievers."""

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStoreRetriever

from glm_rag.errors import ConfigError, KnowledgeBaseError
from glm_rag.retrieval.retriever import HybridRetriever
from glm_rag.types import Chunk, ExtractedDocument


def texts_of(documents):
    return [document.page_content for document in documents]


def test_texts_become_documents_and_can_be_removed(kb):
    (key,) = kb.add_texts(["hello world"], [{"source": "somewhere"}])
    info = kb.get_document(f"text:{key}")
    assert (info.title, info.num_chunks) == ("somewhere", 1)
    assert kb.get_text(f"text:{key}") == "hello world"
    assert kb.verify().findings == ()
    assert kb.remove(f"text:{key}")
    assert kb.similarity_search("hello") == []


def test_adding_the_same_texts_again_changes_nothing(kb):
    texts, metadatas = ["one", "two", "one"], [{"n": 1}, {"n": 2}, {"n": 1}]
    first = kb.add_texts(texts, metadatas)
    assert kb.add_texts(texts, metadatas) == first
    assert first[0] == first[2] != first[1]
    assert kb.info().num_documents == kb.info().num_chunks == 2


def test_a_chunk_of_a_file_can_be_overwritten_by_its_id(kb, make):
    kb.put_document(*make("a", "only chunk"))
    (chunk,) = kb.get_chunks("a")
    kb.add_documents([Document(id=chunk.id, page_content="corrected", metadata={})])
    assert texts_of(kb.similarity_search("x", k=9)) == ["corrected"]
    assert kb.get_document("a") is None
    found = kb.candidates(np.ones(8), ["chunk", "corrected"], limit=1)
    assert found.document_frequency == {"corrected": 1}


def test_a_file_takes_its_overwritten_chunk_back(kb, make):
    kb.put_document(*make("a", "first chunk of text. second chunk of text."))
    kb.add_documents([kb.get_chunks("a")[0]])
    assert kb.put_document(*make("a", "first chunk of text. second chunk of text.")) == "updated"
    assert [d.source for d in kb.documents()] == ["a"]
    assert kb.verify().findings == ()


def test_added_texts_can_be_cited_without_wrong_offsets(kb):
    own, named = kb.add_texts(["one apple", "two apples"], [{}, {"source": "s", "title": "T"}])
    found = kb.candidates(np.ones(8), [], limit=2).candidates
    metadata = {c.document.id: c.document.metadata for c in found}
    start, end = metadata[own]["start"], metadata[own]["end"]
    assert kb.get_text(metadata[own]["source"])[start:end] == "one apple"
    assert metadata[named] == {"source": "s", "title": "T", "language": "en"}


def test_deleting_nothing_named_deletes_everything(kb, make):
    kb.put_document(*make("a", "one " * 20))
    kb.add_texts(["two"])
    kb.similarity_search("x")
    assert kb.delete() is True
    assert (kb.documents(), kb.similarity_search("x")) == ([], [])
    kb.put_document(*make("b", "three"))
    assert texts_of(kb.similarity_search("x")) == ["three"]


def test_deleting_some_chunks_keeps_their_document(kb, make):
    kb.put_document(*make("a", "first chunk of text. second chunk of text."))
    first, *rest = kb.get_chunks("a")
    kb.delete([first.id, "unknown"])
    assert texts_of(kb.get_chunks("a")) == texts_of(rest)
    kb.delete([d.id for d in rest])
    assert kb.documents() == []


def test_get_by_ids_keeps_the_order(kb):
    ids = kb.add_texts(["a", "b", "c"])
    asked = [ids[2], "unknown", ids[0], ids[2]]
    assert texts_of(kb.get_by_ids(asked)) == ["c", "a"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"tag": "x"}, {"one"}),
        ({"tag": ["x", "y"]}, {"one", "two"}),
        ({"tag": None}, {"three", "file text"}),
        ({"n": 1, "tag": "x"}, {"one"}),
        ({"n": 1, "tag": "y"}, set()),
        ({"source": "a"}, {"file text"}),
        ({"language": "en"}, {"file text"}),
        ({"flag": True}, {"three"}),
        ({}, {"one", "two", "three", "file text"}),
        ({"tag": []}, set()),
    ],
)
def test_filters_select_by_metadata(kb, make, wanted, expected):
    kb.add_texts(
        ["one", "two", "three"], [{"tag": "x", "n": 1}, {"tag": "y", "n": 2}, {"flag": True}]
    )
    kb.put_document(*make("a", "file text"))
    assert set(texts_of(kb.similarity_search("q", k=9, filter=wanted))) == expected
    found = kb.candidates(np.ones(8), ["one", "file"], limit=9, where=wanted)
    assert {c.document.page_content for c in found.candidates} == expected
    assert set(texts_of(kb.max_marginal_relevance_search("q", filter=wanted))) == expected


@pytest.mark.parametrize("wanted", [{"tag": {"$gt": 1}}, {'a"b': 1}])
def test_filters_that_cannot_be_compared_are_refused(kb, wanted):
    kb.add_texts(["one"])
    with pytest.raises(ConfigError, match="cannot filter"):
        kb.similarity_search("q", filter=wanted)


def test_each_language_gets_its_own_candidates(kb):
    kb.add_texts([f"english text number {i}" for i in range(30)])
    kb.add_texts(["中文内容"])
    found = kb.candidates(np.ones(8), [], limit=5)
    languages = [candidate.language for candidate in found.candidates]
    assert (languages.count("en"), languages.count("zh")) == (5, 1)


def test_words_find_what_the_vector_does_not(kb):
    kb.add_texts([f"filler {i}" for i in range(50)] + ["the zyzzyva beetle"])
    (vector,) = kb.embed(["filler 7"])
    found = kb.candidates(vector, ["zyzzyva"], limit=2)
    beetle = [c for c in found.candidates if "zyzzyva" in c.document.page_content]
    assert beetle[0].term_counts == {"zyzzyva": 1}
    expected = np.array(kb.embeddings.embed_query("the zyzzyva beetle")) @ vector
    assert beetle[0].cosine == pytest.approx(expected, abs=1e-5)


def test_statistics_are_those_of_all_chunks(kb):
    kb.add_texts(["apple banana", "apple cherry cherry", "育儿假"])
    found = kb.candidates(np.ones(8), ["apple", "cherry", "育儿", "unknown"], limit=5)
    assert found.num_chunks == 3
    assert found.mean_terms == pytest.approx((2 + 3 + 2) / 3)
    assert found.document_frequency == {"apple": 2, "cherry": 1, "育儿": 1}


def test_odd_terms_neither_break_the_query_nor_get_lost(kb):
    terms = ["don't", "and", "near", "naïve", "\U00030000\U00030001", "x1", "ñandú"]
    kb.add_texts([" ".join(terms)])
    found = kb.candidates(np.ones(8), ["don't", "near", "naïve", "ñandú", "x1"], limit=1)
    assert set(found.document_frequency) == {"don't", "near", "naïve", "ñandú", "x1"}


def test_the_default_retriever_is_hybrid_and_takes_both_ways_of_options(kb):
    for options in ({"k": 3, "candidates": 7}, {"search_kwargs": {"k": 3, "candidates": 7}}):
        retriever = kb.as_retriever(**options)
        assert isinstance(retriever, HybridRetriever)
        assert (retriever.k, retriever.num_candidates) == (3, 7)
    with pytest.raises(ConfigError, match="unknown retriever option 'kk'"):
        kb.as_retriever(kk=3)


@pytest.mark.parametrize("search_type", ["similarity", "mmr"])
def test_a_search_type_gives_langchains_retriever(kb, search_type):
    kb.add_texts(["one", "two", "three"])
    retriever = kb.as_retriever(search_type=search_type, search_kwargs={"k": 2})
    assert isinstance(retriever, VectorStoreRetriever)
    assert len(retriever.invoke("one")) == 2


def test_relevance_scores_lie_between_0_and_1(kb):
    kb.add_texts(["one", "two", "three"])
    scores = [score for _, score in kb.similarity_search_with_relevance_scores("one", k=3)]
    assert scores[0] == pytest.approx(1)
    assert all(0 <= score <= 1 for score in scores)


def test_unequal_numbers_of_texts_and_metadata_are_refused(kb):
    with pytest.raises(ConfigError, match="2 texts need as many"):
        kb.add_texts(["one", "two"], [{}])
    with pytest.raises(ConfigError, match="2 texts need as many"):
        kb.add_texts(["one", "two"], ids=["1"])


def test_metadata_that_is_not_json_is_refused(kb):
    with pytest.raises(ConfigError, match="must be JSON"):
        kb.add_texts(["one"], [{"when": object()}])
    assert kb.documents() == []


def test_a_vector_of_another_length_gives_a_clear_line(kb):
    kb.add_texts(["one"])
    with pytest.raises(KnowledgeBaseError, match="have 8 numbers"):
        kb.similarity_search_by_vector([1.0, 0.0])


def test_an_empty_knowledge_base_finds_nothing(kb):
    assert kb.similarity_search("x") == []
    assert kb.max_marginal_relevance_search("x") == []
    assert kb.as_retriever().invoke("anything at all") == []


def test_a_row_of_a_table_is_found_by_a_word_of_its_header(kb):
    text = "| apple | 3 |"
    document = ExtractedDocument("s", "t", text, "", 1, 0.0, "text/plain", "")
    kb.put_document(document, [Chunk(0, len(text), text, table_header="| fruit | stock |")])
    found = kb.candidates(
        np.array(kb.embeddings.embed_query("stock")), ["stock"], limit=3
    ).candidates
    assert [candidate.term_counts["stock"] for candidate in found] == [1]
    assert kb.verify().num_findings == 0


def test_a_number_that_is_none_cannot_break_the_filters_of_all(kb):
    kb.add_texts(["a text"], [{"year": 1999}])
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="metadata must be JSON"):
            kb.add_texts(["another"], [{"year": bad}])
    assert len(kb.similarity_search("x", filter={"year": 1999})) == 1


def test_filters_that_sqlite_cannot_take_are_refused_in_one_line(kb):
    kb.add_texts(["a text"], [{"year": 1999}])
    with pytest.raises(ConfigError, match="give at most 10000"):
        kb.similarity_search("x", filter={"source": [f"s{i}" for i in range(10_001)]})
    with pytest.raises(ConfigError, match="no number is so large"):
        kb.similarity_search("x", filter={"year": 1 << 63})
    many = list(range(10_000))
    assert len(kb.similarity_search("x", filter={"year": many})) == 1
