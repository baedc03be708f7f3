"""A file is exchanged as a whole, whoever is killed, reads or writes meanwhile."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from glm_rag.errors import KnowledgeBaseError
from glm_rag.types import IngestFailure

OLD = "The old canteen opens at eight. " * 3
NEW = "The new canteen opens at nine. " * 4


def texts_of(documents):
    return {document.page_content for document in documents}


def stored(kb, source="a"):
    """All that a reader may see of a document: its text, chunks and what searches find of it."""
    text = kb.get_text(source)
    chunks = texts_of(kb.get_chunks(source))
    dense = texts_of(kb.similarity_search("canteen", k=50))
    found = kb.candidates(np.ones(8), ["canteen", "old", "new"], limit=50)
    return text, chunks, dense, texts_of(c.document for c in found.candidates)


def is_all_of(seen, text, make):
    whole = {chunk.text for chunk in make("a", text)[1]}
    return seen == (text, whole, whole, whole)


def test_killed_before_the_commit_the_old_version_counts(open_kb, make, failing):
    kb = open_kb()
    kb.put_document(*make("a", OLD))
    with failing("before the commit"):
        kb.put_document(*make("a", NEW))
    for reader in (kb, open_kb()):
        assert is_all_of(stored(reader), OLD, make)
        frequencies = reader.candidates(np.ones(8), ["new", "old"], limit=1).document_frequency
        assert set(frequencies) == {"old"}


def test_killed_behind_the_commit_the_new_version_counts(open_kb, make, failing):
    kb = open_kb()
    kb.put_document(*make("a", OLD))
    with failing("behind the commit"):
        kb.put_document(*make("a", NEW))
    for reader in (kb, open_kb()):
        assert is_all_of(stored(reader), NEW, make)
        found = reader.candidates(np.ones(8), ["new", "old"], limit=1)
        assert set(found.document_frequency) == {"new"}
        assert found.num_chunks == len(make("a", NEW)[1])


@pytest.mark.parametrize("when", ["before the commit", "behind the commit"])
def test_the_next_write_leaves_no_trace_of_a_killed_one(kb, make, failing, when):
    kb.put_document(*make("a", OLD))
    with failing(when):
        kb.put_document(*make("a", NEW))
    kb.put_document(*make("b", "another"))
    assert kb.verify().findings == ()
    assert [document.source for document in kb.documents()] == ["a", "b"]
    assert kb.put_document(*make("a", NEW)) == "updated"
    assert kb.verify().findings == ()


def test_a_removal_that_is_killed_has_happened_or_not(kb, make, failing):
    kb.put_document(*make("a", OLD))
    with failing("behind the commit"):
        kb.remove("a")
    assert kb.documents() == []
    assert kb.similarity_search("canteen") == []
    assert kb.remove("a") is False
    kb.put_document(*make("b", "another"))
    assert kb.verify().findings == ()


def test_what_was_written_is_there_when_it_is_opened_again(open_kb, make):
    with open_kb("留存") as kb:
        kb.put_document(*make("a", OLD))
        kb.add_copy("b", of="a", size=1, mtime=2.0)
        kb.record_failure(IngestFailure("c", "load", "encrypted: no", True, "f"))
        known, found = kb.known_sources(), stored(kb)
        vectors = kb.vectors_of([chunk.id for chunk in kb.get_chunks("a")])
    with open_kb("留存", create=False) as again:
        assert (again.known_sources(), stored(again)) == (known, found)
        assert [failure.source for failure in again.failures()] == ["c"]
        for key, vector in again.vectors_of(vectors).items():
            assert (vector == vectors[key]).all()


def test_readers_never_see_a_mixture_while_a_file_is_exchanged(open_kb, make):
    writer, readers = open_kb(), [open_kb(), open_kb()]
    writer.put_document(*make("a", OLD))
    whole = [{chunk.text for chunk in make("a", text)[1]} for text in (OLD, NEW)]
    over = threading.Event()

    def read(kb):
        count = 0
        while not over.is_set():
            found = kb.candidates(np.ones(8), ["old", "new", "canteen"], limit=50).candidates
            assert texts_of(c.document for c in found) in whole
            assert texts_of(kb.get_chunks("a")) in whole
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read, kb) for kb in readers]
        try:
            for number in range(8):
                writer.put_document(*make("a", OLD if number % 2 else NEW))
        finally:
            over.set()
        assert all(done.result() > 0 for done in reading)


def test_writers_of_one_file_leave_one_whole_version(open_kb, make):
    writers = [open_kb() for _ in range(3)]
    documents = [f"version {n} of the canteen's hours, all of it. " * 3 for n in range(3)]

    def write(n):
        for _ in range(3):
            writers[n].put_document(*make("a", documents[n]))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    kb = open_kb()
    assert kb.get_text("a") in documents
    assert is_all_of(stored(kb), kb.get_text("a"), make)
    # What a loser has left behind does not count; the next rebuild takes it away.
    kb.rebuild()
    assert kb.verify().findings == ()


def test_one_long_writer_of_a_machine_at_a_time(open_kb):
    first, second = open_kb(), open_kb()
    with first.writing(), pytest.raises(KnowledgeBaseError, match="is being written by process"):
        second.writing().__enter__()
    with second.writing():
        pass


def test_what_does_not_count_pushes_nothing_out(kb, make, failing):
    kb.put_document(*make("a", OLD))
    kb.put_document(*make("b", "somewhere else"))
    with failing("before the commit"):
        kb.put_document(*make("a", "canteen " * 20, size=8))
    asked = np.array(kb.embeddings.embed_query("canteen "))
    (nearest,) = kb.similarity_search_by_vector(asked.tolist(), k=1)
    assert nearest.page_content != "canteen "
    found = kb.candidates(asked, ["canteen"], limit=1)
    texts = texts_of(c.document for c in found.candidates)
    assert texts
    assert "canteen " not in texts
