"""Whatever happens to the files of the index, no answer is lost and nothing crashes."""

import logging
import os
import random
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("faiss")
import snapshot_compactor
from vector_store import SMALL, VectorStore

from glm_rag.knowledge.vectors import snapshots


@pytest.fixture(params=[SMALL.flat, 2 * SMALL.flat], ids=["flat", "ivf"])
def store(request, tmp_path):
    """A snapshot of a language in one file, and a tail."""
    with closing(VectorStore(tmp_path / "kb")) as store:
        store.add("en", request.param)
        store.save()
        store.add("en", 3)
        store.delete(store.some(2))
        yield store


def the_file(store):
    [path] = (store.folder / "index").glob("*.faiss")
    return path


def check(store, reader):
    for _ in range(3):
        vector = store.random()[0]
        assert reader.ids(vector) == store.nearest(vector, 10)
    assert sorted(reader.ids(vector, 10_000)) == sorted(store.truth)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << (place % 8)
    path.write_bytes(bytes(data))


HARMS = {
    "missing": lambda path: path.unlink(),
    "zero length": lambda path: cut(path, 0),
    "one byte": lambda path: cut(path, 1),
    "a byte too short": lambda path: cut(path, -1),
    "half": lambda path: cut(path, path.stat().st_size // 2),
    "a byte too long": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "other content": lambda path: path.write_bytes(b"IxM2" + bytes(path.stat().st_size - 4)),
    "first bit flipped": lambda path: flip(path, 0),
    "last bit flipped": lambda path: flip(path, -1),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a dangling link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_snapshot_costs_one_warning_and_no_answer_and_is_mended(store, caplog, harm):
    HARMS[harm](the_file(store))
    with caplog.at_level(logging.WARNING), closing(store.reader()) as reader:
        check(store, reader)
        assert reader.index.problems() != []
        assert [r.getMessage().count("\n") for r in caplog.records] == [0]
        assert "rebuilding the index from the database" in caplog.text
        store.add("en", 1)
        check(store, reader)
        assert len(caplog.records) == 1
        reader.index.save()
        check(store, reader)
        assert reader.index.problems() == []
    caplog.clear()
    with closing(store.reader()) as later:
        check(store, later)
        assert later.index._state.parts["en"].snapshot is not None
    assert caplog.records == []


def test_a_bit_flipped_anywhere_is_noticed(store, caplog):
    path = the_file(store)
    good, size = path.read_bytes(), path.stat().st_size
    chance = random.Random(3)
    for _ in range(60):
        flip(path, chance.randrange(size))
        caplog.clear()
        with closing(store.reader()) as reader:
            check(store, reader)
        assert "is damaged" in caplog.text
        path.write_bytes(good)


def test_a_missing_file_is_written_again_by_a_writer_that_never_searched(store):
    the_file(store).unlink()
    store.save()
    with closing(store.reader()) as reader:
        assert reader.index.problems() == []
        check(store, reader)


def test_a_lost_folder_is_made_again(store):
    the_file(store).unlink()
    (store.folder / "index").rmdir()
    store.save()
    assert the_file(store).stat().st_size > 0
    with closing(store.reader()) as reader:
        check(store, reader)


def test_a_file_of_another_knowledge_base_is_refused(store, tmp_path, caplog):
    with closing(VectorStore(tmp_path / "other", seed=9)) as other:
        other.add("en", len(store.truth))
        other.save()
        the_file(store).write_bytes(the_file(other).read_bytes())
    with closing(store.reader()) as reader:
        check(store, reader)
    assert "rebuilding" in caplog.text


def test_a_file_that_passes_its_checksum_but_is_no_index_is_refused(store, caplog):
    path = the_file(store)
    path.write_bytes(b"of a version of FAISS that is to come")
    with store.database.write(changes_chunks=False) as connection:
        connection.execute(
            "UPDATE snapshots SET sha256 = ?, num_bytes = ?",
            (snapshots.checksum(path), path.stat().st_size),
        )
    with closing(store.reader()) as reader:
        check(store, reader)
        assert "cannot be read by this version of FAISS" in caplog.text
        reader.index.save()
        assert reader.index.problems() == []
        check(store, reader)


def run(store, step, limit=0):
    command = [sys.executable, snapshot_compactor.__file__, str(store.folder), step, str(limit)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("step", ["half", "written", "renamed", "committed"])
def test_a_compaction_that_is_killed_leaves_a_usable_snapshot(store, caplog, step):
    store.add("en", 30)
    store.update(store.some(20))
    with closing(store.reader()) as mapped:
        check(store, mapped)
        assert run(store, step).returncode == -9
        check(store, mapped)
        with closing(store.reader()) as reader:
            check(store, reader)
            assert reader.index.problems() == []
            generation = reader.index._state.parts["en"].generation
            assert generation == (2 if step == "committed" else 1)
        store.save()
        check(store, mapped)
        with closing(store.reader()) as reader:
            check(store, reader)
            assert reader.index._state.parts["en"].generation == 2
    assert caplog.records == []


def test_a_full_disk_keeps_the_last_snapshot_and_every_answer(store):
    store.add("en", 100)
    done = run(store, "never", limit=4096)
    assert done.returncode == 0
    assert "no snapshot of the index" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.suffix for path in (store.folder / "index").iterdir()] == [".faiss"]
    with closing(store.reader()) as reader:
        check(store, reader)
        assert reader.index.problems() == []


UNCLOSED = """
    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from vector_store import VectorStore
    store = VectorStore(Path({folder!r}))
    store.add("en", 3000)
    store.reader().index.compact_if_due()
"""


def test_an_interpreter_that_ends_without_closing_finishes_the_compaction(tmp_path):
    folder = tmp_path / "kb"
    tests = str(Path(snapshot_compactor.__file__).parents[1] / "unit" / "knowledge")
    code = textwrap.dedent(UNCLOSED).format(tests=tests, folder=str(folder))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    with closing(VectorStore(folder)) as store, closing(store.reader()) as reader:
        assert store.generations() == {"en": 1}
        assert reader.index.problems() == []
        assert len(reader.ids(store.random()[0], 10_000)) == 3000
