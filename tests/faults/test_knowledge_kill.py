"""Processes that are killed, that write at once, and that read while others write."""

import random
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

pytest.importorskip("faiss")
import knowledge_writer as writer


def start(home, mode, first, count):
    return subprocess.Popen(
        [sys.executable, writer.__file__, str(home), mode, str(first), str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )


def stored_version(kb, source="doc"):
    """The version all chunks agree on."""
    versions = {d.page_content.split()[4] for d in kb.get_chunks(source)}
    assert len(versions) == 1, f"chunks of several versions: {versions}"
    info = kb.get_document(source)
    assert info.num_chunks == writer.NUM_CHUNKS
    return int(versions.pop())


def check_whole(kb):
    """Every table, the full-text index and the vector index tell the same story."""
    assert kb.verify().findings == ()
    chunks = kb.info().num_chunks
    assert len(kb.similarity_search("x", k=10_000)) == chunks
    with kb._database.write(changes_chunks=False) as connection:
        connection.execute("INSERT INTO chunk_terms (chunk_terms) VALUES ('integrity-check')")


def test_dying_inside_the_transaction_leaves_the_old_version_whole(home):
    process = start(home, "die", 0, 3)
    assert [int(line) for line in process.stdout] == [0, 1]
    assert process.wait() == -9
    process.stdout.close()
    with writer.open_kb(home) as kb:
        assert stored_version(kb) == 1
        check_whole(kb)


def kill_some_time(home, rounds, seed):
    chance = random.Random(seed)
    last = -1
    for _ in range(rounds):
        with start(home, "loop", last + 1, 10_000) as process:
            assert process.stdout.readline().strip() == str(last + 1)
            time.sleep(chance.uniform(0.0, 0.3))
            process.kill()
            printed = [int(line) for line in process.stdout if line.endswith("\n")]
        acknowledged = printed[-1] if printed else last + 1
        with writer.open_kb(home) as kb:
            last = stored_version(kb)
            assert kb.get_document("doc").sha256 == str(last)
            assert last in {acknowledged, acknowledged + 1}
            check_whole(kb)
            assert kb.put_document(*writer.version(last)) == "updated"


def test_kill_at_any_moment_loses_nothing_that_was_acknowledged(home):
    kill_some_time(home, rounds=2, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kill_at_many_moments_loses_nothing_that_was_acknowledged(home):
    kill_some_time(home, rounds=40, seed=2)


def test_opening_waits_for_another_process_that_is_making_the_same_file(home):
    path = home / "kb" / "kb" / "library.sqlite"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, other.execute, ["COMMIT"])
        release.start()
        with writer.open_kb(home, create=True) as kb:
            assert not release.is_alive()
            assert kb.put_document(*writer.version(0)) == "added"
        release.join()


def test_two_writers_at_once_both_succeed(home):
    with start(home, "many", 0, 15) as one, start(home, "many", 100, 15) as other:
        for process in (one, other):
            process.communicate()
    assert (one.returncode, other.returncode) == (0, 0)
    with writer.open_kb(home) as kb:
        expected = {f"doc{n}" for n in (*range(15), *range(100, 115))}
        assert {d.source for d in kb.documents()} == expected
        check_whole(kb)


def test_readers_see_the_old_version_or_the_new_one_while_another_process_writes(home):
    with writer.open_kb(home, create=True) as kb:
        kb.put_document(*writer.version(0))
        failures: list[BaseException] = []
        seen: set[str] = set()
        done = threading.Event()

        def read():
            try:
                while not done.is_set():
                    found = kb.similarity_search("x", k=writer.NUM_CHUNKS)
                    assert len(found) == writer.NUM_CHUNKS
                    versions = {d.page_content.split()[4] for d in found}
                    assert len(versions) == 1
                    seen.update(versions)
                    stored_version(kb)
            except BaseException as error:  # noqa: BLE001 - raised again in the main thread
                failures.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        process = start(home, "loop", 1, 40)
        process.communicate()
        done.set()
        for thread in threads:
            thread.join()
        assert process.returncode == 0
        if failures:
            raise failures[0]
        assert len(seen) > 1, "nothing changed while reading"
        assert kb.similarity_search("x", k=1)[0].page_content.split()[4] == "40"
