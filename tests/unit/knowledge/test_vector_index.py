"""The vector index finds what reading every vector would find, whatever has happened before."""

import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faiss")
sys.path.insert(0, str(Path(__file__).parent))
from vector_store import DIMENSION, SMALL, VectorStore

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import index as index_module
from glm_rag.knowledge.database import Database
from glm_rag.knowledge.index import VectorIndex
from glm_rag.knowledge.vectors import kinds, snapshots
from glm_rag.knowledge.vectors import state as state_module


@pytest.fixture
def store(tmp_path):
    with closing(VectorStore(tmp_path / "kb")) as store:
        yield store


@pytest.fixture
def reader(store):
    with closing(store.reader()) as reader:
        yield reader


@pytest.fixture
def swept_at_once(monkeypatch):
    monkeypatch.setattr(snapshots, "_REPLACED_SECONDS", -1.0)


def check(store, reader):
    """Every kind of search agrees with the truth."""
    vector = store.random()[0]
    for language in (None, "en", "zh"):
        assert reader.ids(vector, language=language) == store.nearest(vector, 10, language)
    few, many = sorted(store.some(SMALL.scanned)), sorted(store.some(len(store.truth) // 2))
    for allowed in (few, many):
        for language in (None, "zh"):
            found = reader.ids(vector, language=language, allowed=np.array(allowed, np.int64))
            assert found == store.nearest(vector, 10, language, set(allowed))
    everything = len(store.truth) + 5
    assert sorted(reader.ids(vector, everything)) == sorted(store.truth)
    assert reader.index.languages == sorted({known[0] for known in store.truth.values()})
    assert len(reader.index) == len(store.truth)
    for row_id, score in reader.search(vector, 3):
        assert score == pytest.approx(float(store.truth[row_id][1] @ vector), abs=1e-6)
        assert (reader.index.vector(row_id) == store.truth[row_id][1]).all()


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


def test_a_short_tail_writes_no_snapshot_and_a_long_one_does(store):
    store.add("en", SMALL.min_changes)
    store.save()
    assert store.generations() == {}
    store.add("en", 1)
    store.save()
    assert store.generations() == {"en": 1}
    store.add("en", SMALL.min_changes)
    store.save()
    assert store.generations() == {"en": 1}
    store.update(store.some(1))
    store.save()
    assert store.generations() == {"en": 2}


def test_a_long_tail_of_one_language_leaves_the_file_of_the_other(store):
    store.add("en", 50)
    store.add("zh", 50)
    store.save()
    before = store.generations()
    store.add("zh", 50)
    store.save()
    after = store.generations()
    assert after["en"] == before["en"]
    assert after["zh"] > before["zh"]


def test_a_reader_takes_the_new_snapshot_once_its_tail_is_long(store, reader):
    store.add("en", 50)
    store.save()
    reader.refresh()
    store.add("en", 40)
    store.save()
    reader.refresh()
    part = reader.index._state.parts["en"]
    assert (len(part.tail), part.snapshot.num_vectors) == (0, 90)


def test_a_reader_that_missed_deletions_notices_and_loads_anew(store, reader):
    store.add("en", 50)
    store.save()
    check(store, reader)
    store.delete(store.some(30))
    store.save()
    assert store.database.value("SELECT count(*) FROM deletions") == 0
    check(store, reader)


def test_the_log_of_deletions_is_cut_without_any_snapshot_too(store, reader):
    store.add("en", 5)
    check(store, reader)
    for _ in range(SMALL.min_changes):
        store.update(store.some(2))
    store.save()
    assert store.database.value("SELECT count(*) FROM deletions") == 0
    check(store, reader)


def test_an_untouched_language_does_not_keep_the_log_from_being_cut(store, reader):
    store.add("zh", 50)
    store.save()
    generation = store.generations()["zh"]
    for _ in range(4):
        store.add("en", 40)
        store.delete(store.some(40, "en"))
        store.save()
    assert store.generations()["zh"] == generation
    assert store.database.value("SELECT count(*) FROM deletions") <= SMALL.changes(50)
    check(store, reader)


def test_a_reader_goes_on_with_a_file_that_was_replaced_and_removed(store, reader, swept_at_once):
    ids = store.add("en", 50)
    store.save()
    reader.refresh()
    store.add("en", 50)
    store.save()
    assert store.snapshots() == ["2.faiss"]
    found = reader.index.search(store.random()[0], 1000)  # without refresh: its own moment
    assert sorted(row_id for row_id, _ in found) == ids
    check(store, reader)


def test_a_replaced_file_stays_a_minute_for_who_is_about_to_open_it(store):
    store.add("en", 50)
    store.save()
    store.add("en", 50)
    store.save()
    assert store.snapshots() == ["1.faiss", "2.faiss"]


def test_who_opens_later_removes_a_file_that_was_replaced(store, reader, monkeypatch):
    store.add("en", 50)
    store.save()
    store.add("en", 50)
    store.save()
    monkeypatch.setattr(snapshots, "_REPLACED_SECONDS", -1.0)
    check(store, reader)
    assert store.snapshots() == ["2.faiss"]


def test_what_a_killed_process_left_is_swept(store, monkeypatch):
    store.add("en", 50)
    store.save()
    (store.folder / "index" / "dead.tmp").write_bytes(b"half")
    (store.folder / "index" / "9.faiss").write_bytes(b"of a write that may still commit")
    monkeypatch.setattr(snapshots, "_REPLACED_SECONDS", -1.0)
    store.add("en", 50)
    store.save()
    assert store.snapshots() == ["2.faiss", "9.faiss", "dead.tmp"]
    monkeypatch.setattr(snapshots, "_STALE_SECONDS", -1.0)
    store.save()
    assert store.snapshots() == ["2.faiss"]


def test_a_generation_whose_commit_was_lost_is_written_over(store):
    store.add("en", 50)
    (store.folder / "index").mkdir()
    (store.folder / "index" / "1.faiss").write_bytes(b"renamed, but never committed")
    store.save()
    with closing(store.reader()) as reader:
        check(store, reader)
        assert reader.index._state.parts["en"].generation == 1


def test_a_compaction_that_was_overtaken_changes_nothing(store, monkeypatch):
    store.add("en", 50)
    write_file = snapshots.write_file

    def slowly(folder, index):
        monkeypatch.setattr(snapshots, "write_file", write_file)
        store.save()
        return write_file(folder, index)

    monkeypatch.setattr(snapshots, "write_file", slowly)
    store.save()
    assert store.snapshots() == ["1.faiss"]
    assert store.generations() == {"en": 1}


def test_lists_are_trained_when_needed_and_again_after_fourfold_growth(store, reader):
    def trained():
        return store.database.value("SELECT num_trained FROM snapshots")

    seen = []
    for target in (60, 61, 200, 243, 244, 100, 31, 30):
        missing = target - len(store.truth)
        if missing > 0:
            store.add("en", missing)
        else:
            store.delete(store.some(-missing))
        store.save(kinds.IndexLimits(flat=60, min_changes=0, change_share=0.0))
        seen.append(trained())
        check(store, reader)
    assert seen == [0, 61, 61, 61, 244, 244, 244, 0]


def test_a_drifted_file_is_built_from_the_database(store, caplog):
    store.add("en", 50)
    store.save()
    with store.database.write() as connection:
        connection.execute("UPDATE snapshots SET last_id = last_id - 20")
    with closing(store.reader()) as reader:
        reader.index.save()
        assert "drifted" in caplog.text
        check(store, reader)
        assert reader.index.problems() == []


def test_verifying_names_a_file_that_holds_other_chunks(store, reader):
    store.add("en", 50)
    store.save()
    assert reader.index.problems() == []
    with store.database.write() as connection:
        connection.execute("DELETE FROM deletions")
        connection.execute("UPDATE snapshots SET last_id = last_id - 1")
    assert [
        "lacks 0 chunks and has 1 that are gone" in line for line in reader.index.problems()
    ] == [True]
    reader.index.rebuild()
    assert reader.index.problems() == []
    check(store, reader)


def test_compaction_in_the_background_is_finished_at_save(store):
    with closing(store.reader()) as writer:
        writer.index.compact_if_due()
        assert store.generations() == {}
        for _ in range(5):
            store.add("en", 30)
            writer.index.compact_if_due()
        writer.index.save()
        assert list(store.generations()) == ["en"]
        check(store, writer)
        assert not [t for t in threading.enumerate() if t.name == "glm-rag compaction"]


def test_looking_whether_a_snapshot_is_due_happens_once_for_many_commits(store, monkeypatch):
    looks = []
    with closing(store.reader(kinds.IndexLimits())) as writer:
        monkeypatch.setattr(
            writer.index._compactor, "_due", lambda: looks.append(len(store.truth)) or []
        )
        for _ in range(21):
            store.add("en", 100)
            writer.index.compact_if_due()
    assert looks == [1000, 2000]


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


def test_a_filter_that_few_chunks_pass_is_searched_everywhere(store, reader):
    store.add("en", 4000)
    store.save()
    part = reader.ids(store.random()[0]) and reader.index._state.parts["en"]
    assert kinds.num_probed(4000, part.index.nlist, 40, 1.0) < part.index.nlist / 3
    for _ in range(5):
        vector, allowed = store.random()[0], set(store.some(40))
        found = reader.ids(vector, allowed=np.array(sorted(allowed)))
        assert found == store.nearest(vector, 10, allowed=allowed)


def test_the_rarer_what_is_allowed_and_the_more_is_wanted_the_more_lists_are_read():
    def probed(wanted, share):
        return kinds.num_probed(10**6, 4000, wanted, share)

    assert probed(40, 1.0) < probed(40, 0.5) < probed(40, 0.25) < probed(40, 0.01) == 4000
    assert probed(40, 1.0) < probed(30_000, 1.0) < probed(10**6, 1.0) == 4000
    assert kinds.num_probed(100, 3, 40, 1.0) == 3
