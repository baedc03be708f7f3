"""The vector index finds what reading every vector would find, whatever has happened before."""

import threading
from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("faiss")
from vector_store import DIMENSION, SMALL, VectorStore, check

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import index as index_module
from glm_rag.knowledge.database import Database
from glm_rag.knowledge.index import VectorIndex
from glm_rag.knowledge.vectors import state as state_module


def step(store, chance):
    """Something a writer may do."""
    language = chance.choice(["en", "en", "zh"])
    act = chance.choice(["add", "add", "bulk", "delete", "update", "save", "save", "empty"])
    if act == "add":
        store.add(language, int(chance.integers(1, 6)))
    elif act == "bulk":
        store.add(language, int(chance.integers(20, 70)))
    elif act == "delete":
        store.delete(store.some(int(chance.integers(1, 12))))
    elif act == "update":
        store.update(store.some(int(chance.integers(1, 5))))
    elif act == "save":
        store.save()
    elif act == "empty" and chance.random() < 0.2:
        store.delete(store.some(10_000, language))


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_changes_gives_the_results_of_brute_force(tmp_path, seed, swept_at_once):
    chance = np.random.default_rng(seed)
    kinds_seen = set()
    with closing(VectorStore(tmp_path / "kb", seed)) as store:
        often, seldom = store.reader(), store.reader()
        for number in range(60):
            step(store, chance)
            check(store, often)
            if number % 7 == 0:
                check(store, seldom)
            if number % 9 == 0:
                often.close()
                often = store.reader()
            trained = store.database.rows("SELECT language, num_trained FROM snapshots")
            kinds_seen.update(bool(count) for _, count in trained)
            assert often.index.problems() == []
        often.close()
        seldom.close()
    assert kinds_seen == {False, True}, "both kinds must be met"


def test_an_empty_knowledge_base_finds_nothing(store, reader):
    assert reader.search(np.zeros(DIMENSION, np.float32)) == []
    assert reader.index.languages == []
    assert reader.index.dimension == 0
    reader.index.save()
    assert store.snapshots() == []


def test_one_vector_is_found_however_many_are_wanted(store, reader):
    [only] = store.add("zh")
    assert reader.ids(store.random()[0], 1000) == [only]
    assert reader.ids(store.random()[0], 0) == []
    assert reader.ids(store.random()[0], language="en") == []
    assert reader.ids(store.random()[0], allowed=np.zeros(0, np.int64)) == []


def test_a_question_of_another_length_or_without_numbers_is_refused_in_one_line(store, reader):
    store.add("en", 100)
    store.save()
    with pytest.raises(KnowledgeBaseError, match=r"shape \(3,\).*have 16 numbers"):
        reader.search(np.zeros(3, np.float32))
    with pytest.raises(KnowledgeBaseError, match="not made of numbers"):
        reader.search(np.full(DIMENSION, np.nan, np.float32))


def test_vectors_of_unequal_length_say_damaged(store, reader):
    store.add("en", 3)
    with store.database.write() as connection:
        connection.execute("UPDATE vectors SET vector = x'00000000' WHERE id = 2")
    with pytest.raises(
        KnowledgeBaseError, match=r"library\.sqlite is damaged \(vectors of unequal"
    ):
        reader.refresh()


def test_a_vector_that_is_not_there_is_named(store, reader):
    with pytest.raises(KnowledgeBaseError, match="no vector with id 7"):
        reader.index.vector(7)


def test_a_language_that_loses_its_last_chunk_is_gone_and_may_come_back(store, reader):
    store.add("zh", 100)
    kept = store.add("en", 2)
    store.save()
    check(store, reader)
    store.delete(store.some(100, "zh"))
    assert reader.ids(store.random()[0], 1000) == sorted(kept) or len(store.truth) == 2
    check(store, reader)
    store.save()
    assert store.generations() == {}
    store.add("zh", 3)
    check(store, reader)


def test_another_embedder_after_emptying_is_followed(store, reader):
    store.add("en", 100)
    store.save()
    reader.refresh()
    store.delete(store.some(1000))
    store.add("en", 30, dimension=8)
    found = reader.ids(store.random(1, 8)[0], 100)
    assert sorted(found) == sorted(store.truth)
    store.save()
    with closing(store.reader()) as later:
        assert sorted(later.ids(store.random(1, 8)[0], 100)) == sorted(store.truth)


def forbid_loading(monkeypatch):
    def refuse(*args):
        raise AssertionError("everything was loaded again")

    monkeypatch.setattr(index_module, "load", refuse)


def test_a_refresh_reads_only_what_has_changed(store, reader, monkeypatch):
    store.add("en", 100)
    store.add("zh", 40)
    store.save()
    reader.refresh()
    forbid_loading(monkeypatch)
    read = []
    real = state_module.rows.all_newer_vectors

    def counting(*args):
        for batch in real(*args):
            read.append(len(batch[1]))
            yield batch

    monkeypatch.setattr(state_module.rows, "all_newer_vectors", counting)
    monkeypatch.setattr(state_module.rows, "newer_vectors", None)
    monkeypatch.setattr(state_module.rows, "ids_of", None)
    store.add("en", 3)
    store.delete(store.some(4, "zh"))
    check(store, reader)
    assert read == [3]
    reader.refresh()
    assert read == [3]


def test_threads_search_while_others_refresh(store, reader):
    store.add("en", 100)
    store.add("zh", 50)
    store.save()
    failures = []
    done = threading.Event()

    def search(seed):
        vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
        try:
            while not done.is_set():
                assert len(reader.search(vector, 10)) == 10
                assert len(reader.index.search(vector, 10, language="zh")) == 10
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            failures.append(error)

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        store.add("zh", 10)
        store.update(store.some(3))
        store.save()
    done.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    check(store, reader)


def test_a_search_keeps_no_lock_on_the_index(store, reader):
    store.add("en", 100)
    store.save()
    reader.refresh()
    vector = store.random()[0]
    with reader.index._refreshing:
        found = reader.index.search(vector, 3)
    assert [row_id for row_id, _ in found] == store.nearest(vector, 3)


def test_a_read_only_folder_is_searched(store, tmp_path):
    store.add("en", 100)
    store.save()
    database = Database(store.folder)
    database.read_only = True
    with closing(database), database.read() as connection:
        index = VectorIndex(database, SMALL)
        index.refresh(connection)
        vector = store.random()[0]
        assert [row_id for row_id, _ in index.search(vector, 5)] == store.nearest(vector, 5)
