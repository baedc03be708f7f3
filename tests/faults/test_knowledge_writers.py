"""Many readers beside a writer, two writers, and the lock that one ingest run holds."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("faiss")
import knowledge_pairs as pairs
import knowledge_writer as writer

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge.lock import writing
from glm_rag.knowledge.naming import delete_knowledge_base


def start(home, mode, number, seconds):
    command = [sys.executable, pairs.__file__, str(home), mode, str(number), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def race(home, *, readers, writers, seconds):
    with writer.open_kb(home, create=True) as kb:
        pairs.put_pair(kb, 0, 0)
    running = [start(home, "write", 1 + 1_000_000 * n, seconds) for n in range(writers)]
    running += [start(home, "read", n, seconds) for n in range(readers)]
    done = [process.communicate() for process in running]
    for process, (_, error) in zip(running, done, strict=True):
        assert process.returncode == 0, error
    counts = [int(out) for out, _ in done]
    assert min(counts) >= pairs.LEAST
    with writer.open_kb(home) as kb:
        assert kb.verify().findings == ()
        pairs.check([d.page_content for d in kb.similarity_search("x", k=100)])
    return counts


def test_readers_beside_a_writer_see_committed_states_only(home):
    race(home, readers=3, writers=1, seconds=5)


def test_two_writers_at_once_corrupt_nothing(home):
    race(home, readers=1, writers=2, seconds=3)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_six_readers_beside_a_writer_for_a_minute(home):
    race(home, readers=6, writers=1, seconds=60)


# ---------------------------------------------------------------- the lock of one ingest run

HOLD = """
    import sys, time
    sys.path.insert(0, {tests!r})
    import knowledge_writer as writer
    from pathlib import Path

    with writer.open_kb(Path({home!r}), create=True) as kb, kb.writing():
        print("held", flush=True)
        time.sleep({seconds})
"""


def hold(home, seconds=60.0):
    code = textwrap.dedent(HOLD).format(
        tests=str(Path(__file__).parent), home=str(home), seconds=seconds
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "held"
    return process


def test_a_second_run_is_told_who_writes(home):
    with hold(home) as process, writer.open_kb(home) as kb:
        with pytest.raises(KnowledgeBaseError) as caught, kb.writing():
            pass
        message = str(caught.value)
        assert f"'kb' is being written by process {process.pid} on " in message
        assert message.endswith("wait for it with --wait")
        assert "\n" not in message
        with pytest.raises(KnowledgeBaseError, match="try again later"), kb.writing(wait=0.3):
            pass
        # Short writes need no lock.
        assert kb.put_document(*writer.version(1)) == "added"
        with pytest.raises(KnowledgeBaseError, match="is being written"):
            kb.rebuild()
        with pytest.raises(KnowledgeBaseError, match="is being written"):
            delete_knowledge_base("kb", home)
        assert kb.verify().findings == ()
        process.kill()


def test_a_second_run_that_waits_gets_its_turn(home):
    told = []
    waiting = {"wait": 30, "on_wait": told.append}
    with hold(home, seconds=0.5), writer.open_kb(home) as kb, kb.writing(**waiting):
        assert kb.put_document(*writer.version(1)) == "added"
    assert len(told) == 1
    assert told[0].endswith(": waiting")


def test_the_lock_of_a_killed_process_is_no_obstacle(home):
    with hold(home) as process:
        os.kill(process.pid, signal.SIGKILL)
    assert str(process.pid) in (home / "kb" / "kb" / "write.lock").read_text()
    with writer.open_kb(home) as kb, kb.writing():
        assert str(os.getpid()) in (home / "kb" / "kb" / "write.lock").read_text()
    with writer.open_kb(home) as kb, kb.writing():
        pass


def test_two_threads_of_one_process_do_not_write_at_once(home):
    with writer.open_kb(home, create=True) as kb, kb.writing():
        caught = []

        def other():
            try:
                with kb.writing():
                    pass
            except KnowledgeBaseError as error:
                caught.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert f"process {os.getpid()}" in caught[0]


def test_an_error_inside_gives_the_lock_back(home):
    with writer.open_kb(home, create=True) as kb:
        with pytest.raises(ZeroDivisionError), kb.writing():
            raise ZeroDivisionError
        with kb.writing():
            pass


REBUILD = """
    import sys
    sys.path.insert(0, {tests!r})
    import knowledge_writer as writer
    from pathlib import Path

    class Other(writer.CountingEmbeddings):
        name = "other"

    with writer.KnowledgeBase.open("kb", home=Path({home!r})) as kb:
        print("begun", flush=True)
        kb.rebuild(embeddings=Other())
"""


def test_a_rebuild_killed_at_any_moment_leaves_the_old_state_or_the_new_one(home):
    with writer.open_kb(home, create=True) as kb:
        for number in range(30):
            kb.put_document(*writer.version(number, f"doc{number}"))
    code = textwrap.dedent(REBUILD).format(tests=str(Path(__file__).parent), home=str(home))
    seen = set()
    for wait in (0.0, 0.05, 0.15, 0.3, None):
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline().strip() == "begun"
            if wait is not None:
                time.sleep(wait)
                process.kill()
        with writer.KnowledgeBase.open("kb", home=home) as kb:
            seen.add(kb.embeddings_name)
            assert kb.verify().findings == ()
            assert kb.info().num_chunks == 30 * writer.NUM_CHUNKS
    assert kb.embeddings_name == "other"


def test_who_waited_for_a_knowledge_base_that_was_deleted_is_told(home):
    with writer.open_kb(home, create=True) as kb:
        told = threading.Event()
        caught = []

        def wait():
            try:
                with kb.writing(wait=30, on_wait=lambda _: told.set()):
                    kb.put_document(*writer.version(1))
            except KnowledgeBaseError as error:
                caught.append(str(error))

        thread = threading.Thread(target=wait)
        with writing(kb.path, "kb"):
            thread.start()
            assert told.wait(30)
            shutil.rmtree(kb.path)
        thread.join()
        assert caught == ["knowledge base 'kb' was deleted or renamed meanwhile: run again"]
