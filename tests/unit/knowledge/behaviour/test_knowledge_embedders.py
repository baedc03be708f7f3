"""A knowledge base keeps to the embedder that made its vectors."""

import numpy as np
import pytest

from glm_rag.errors import KnowledgeBaseError


def test_another_embedder_is_refused_and_both_are_named(open_kb, hash_embeddings, make):
    open_kb().put_document(*make("a", "text"))
    with pytest.raises(KnowledgeBaseError, match="built with hash, not with other: use that"):
        open_kb(embeddings=hash_embeddings("other"))


def test_another_embedder_is_refused_in_the_middle(open_kb, hash_embeddings, make):
    first, second = open_kb(), open_kb(embeddings=hash_embeddings("other"))
    first.put_document(*make("a", "text"))
    with pytest.raises(KnowledgeBaseError, match="built with hash"):
        second.put_document(*make("b", "text"))
    assert [d.source for d in first.documents()] == ["a"]


def test_an_embedder_that_changed_its_dimension_is_refused(open_kb, hash_embeddings, make):
    open_kb().put_document(*make("a", "text"))
    changed = open_kb(embeddings=hash_embeddings(dimension=4))
    with pytest.raises(KnowledgeBaseError, match="8 numbers"):
        changed.put_document(*make("b", "other"))


def test_an_emptied_knowledge_base_takes_another_embedder(open_kb, hash_embeddings, make):
    first = open_kb()
    first.put_document(*make("a", "text"))
    first.similarity_search("x")
    first.remove("a")
    second = open_kb(embeddings=hash_embeddings("other", dimension=4))
    second.put_document(*make("b", "text"))
    assert len(second.similarity_search("x")) == 1
    assert second.info().dimension == 4


def test_opening_twice_in_one_process_shares_the_truth(open_kb, make):
    first, second = open_kb(), open_kb()
    assert second.similarity_search("x") == []
    first.put_document(*make("a", "text"))
    assert [d.page_content for d in second.similarity_search("x")] == ["text"]
    first.remove("a")
    assert second.similarity_search("x") == []
    assert second.candidates(np.ones(8), ["text"], limit=3).num_chunks == 0


def test_an_embedder_only_its_owner_can_make_is_asked_for_on_use(open_kb, make):
    open_kb().put_document(*make("a", "text"))
    kb = open_kb(embeddings=None, create=False)
    assert kb.info().num_chunks == 1
    with pytest.raises(KnowledgeBaseError, match="built with hash: open it with embeddings"):
        kb.similarity_search("x")
