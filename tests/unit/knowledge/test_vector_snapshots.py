"""Files of vectors: when one is written, who goes on reading it, and when it is swept."""

import threading
from contextlib import closing

import pytest

pytest.importorskip("faiss")
from vector_store import SMALL, check

from glm_rag.knowledge.vectors import checking, kinds, snapshots


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


def test_verifying_beside_a_writer_that_replaces_the_file_names_nothing(
    store, reader, swept_at_once
):
    store.add("en", SMALL.flat)
    store.save()
    with reader.database.read() as connection:
        assert len(snapshots.read_snapshots(connection)) == 1
        store.add("en", SMALL.flat)
        store.save()
        assert store.snapshots() == ["2.faiss"]
        assert checking.snapshot_problems(connection, store.folder) == []


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
