"""What only the FAISS-backed knowledge base has: its rows in SQLite."""

import numpy as np

from glm_rag.knowledge.base import KnowledgeBase

TEXT = "Parental leave is sixteen weeks. 育儿假为十六周。 The end."


def test_verify_names_a_chunk_that_moved(kb, make):
    kb.put_document(*make("a", TEXT))
    with kb._database.write() as connection:
        connection.execute("UPDATE chunks SET start_offset = 1 WHERE chunk_index = 0")
    found = [(f.source, f.problem) for f in kb.verify().findings if f.check == "chunk"]
    assert found == [("a", "characters 1 to 20 are not the chunk's text")]


def test_ids_of_the_index_are_never_given_twice(kb, make):
    kb.put_document(*make("a", "one"))
    (first,) = kb._database.rows("SELECT id FROM chunks")
    kb.remove("a")
    kb.put_document(*make("b", "two"))
    (second,) = kb._database.rows("SELECT id FROM chunks")
    assert second > first


def test_removing_leaves_no_row(kb, make):
    kb.put_document(*make("a", TEXT))
    kb.put_document(*make("b", "another"))
    kb.remove("a")
    for table in ("chunks", "vectors", "term_statistics"):
        assert kb._database.value(f"SELECT count(*) FROM {table}") == 1


def test_the_path_is_the_folder(kb, home):
    assert kb.info().path == str(home / "kb" / "kb")
    assert kb.info().size_bytes > 0


def test_from_texts_makes_a_knowledge_base(home, hash_embeddings):
    with KnowledgeBase.from_texts(["one"], hash_embeddings(), home=home, name="made") as kb:
        assert [d.page_content for d in kb.similarity_search("one")] == ["one"]


def test_vectors_of_a_run_nobody_took_up_are_swept(kb):
    kb.keep_vectors(["old"], np.ones((1, 8)))
    with kb._database.write() as connection:
        connection.execute("UPDATE pending_vectors SET added_at = added_at - 8 * 24 * 3600")
    kb.keep_vectors(["new"], np.ones((1, 8)))
    assert [vector is None for vector in kb.find_vectors(["old", "new"])] == [True, False]
