"""Another embedder takes over: every chunk is kept, and who has it open is told."""

import numpy as np
import pytest
from damaged import damage

from glm_rag.errors import KnowledgeBaseError


def test_another_embedder_takes_over_and_all_chunks_are_kept(filled, open_kb, hash_embeddings):
    keys = {row[0] for row in filled._database.rows("SELECT key FROM chunks")}
    reader = open_kb()
    assert len(reader.similarity_search("x", k=99)) == 7
    filled.rebuild(embeddings=hash_embeddings("other", dimension=4))
    assert filled.verify().findings == ()
    assert (filled.info().embeddings, filled.info().dimension) == ("other", 4)
    assert {row[0] for row in filled._database.rows("SELECT key FROM chunks")} == keys
    assert len(filled.similarity_search("x", k=99)) == 7
    with pytest.raises(KnowledgeBaseError, match="was built with other"):
        open_kb()
    fresh = open_kb(embeddings=hash_embeddings("other", dimension=4))
    assert fresh.similarity_search("x", k=99) == filled.similarity_search("x", k=99)
    assert filled._database.value("SELECT count(*) FROM pending_vectors") == 0


def test_a_reader_with_the_former_embedder_is_told_to_open_again(filled, open_kb, hash_embeddings):
    reader = open_kb()
    filled.rebuild(embeddings=hash_embeddings("other"))
    for search in (
        lambda: reader.similarity_search("x"),
        lambda: reader.candidates(np.ones(8), ["rules"], limit=1),
    ):
        with pytest.raises(KnowledgeBaseError, match="rebuilt with other since it was opened"):
            search()
    assert len(filled.similarity_search("x", k=99)) == 7


def test_a_reader_that_is_open_sees_the_new_vectors(filled, open_kb):
    damage(filled, "UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE id = 1)")
    reader, query = open_kb(), "another document"
    assert reader.similarity_search_with_score(query, k=1)[0][1] < 0.99
    numbers = set(filled._database.rows("SELECT id FROM chunks"))
    filled.rebuild(embed=True)
    assert not numbers & set(filled._database.rows("SELECT id FROM chunks")), "given twice"
    ((found, score),) = reader.similarity_search_with_score(query, k=1)
    assert (found.page_content, round(score, 5)) == (query, 1.0)


def test_embedding_again_beside_a_writer_leaves_no_chunk_without_a_vector(
    kb, open_kb, make, hash_embeddings, monkeypatch
):
    from glm_rag.knowledge import rebuild

    other = open_kb()

    class Watched(hash_embeddings):
        def embed_documents(self, texts):
            if texts == ["said once"]:  # the vector of "said twice" is pending
                other.put_document(*make("c", "said twice"))
                other.remove("c")
            return super().embed_documents(texts)

    kb.put_document(*make("a", "said twice"))
    kb.put_document(*make("b", "said once"))
    monkeypatch.setattr(rebuild, "_BATCH", 1)
    kb.rebuild(embeddings=Watched())
    assert kb.verify().findings == ()
    assert len(kb.similarity_search("x", k=9)) == 2


def test_embedding_again_that_was_broken_off_goes_on_where_it_was(filled, hash_embeddings):
    class Breaks(hash_embeddings):
        def __init__(self, name):
            super().__init__(name)
            self.seen = []

        def embed_documents(self, texts):
            if self.seen:
                raise KeyboardInterrupt
            self.seen.extend(texts)
            return super().embed_documents(texts)

    from glm_rag.knowledge import rebuild

    other = Breaks("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rebuild, "_BATCH", 3)
        with pytest.raises(KeyboardInterrupt):
            filled.rebuild(embeddings=other)
    assert filled.info().embeddings == "hash"
    assert filled.verify().findings == ()
    assert len(filled.similarity_search("x", k=99)) == 7
    first, other.seen = list(other.seen), []
    filled.rebuild(embeddings=other)
    assert (len(first), len(other.seen)) == (3, 4)
    assert not set(first) & set(other.seen)
    assert filled.verify().findings == ()
