"""Reading on a cluster, without one: which task reads what, and what its death costs."""

from __future__ import annotations

import os
import queue
from dataclasses import replace

import pytest
from ray_fakes import Reference, died

from glm_rag.config import load_config
from glm_rag.errors import DocumentError
from glm_rag_ingest.discover import discover
from glm_rag_ingest.jobs import Cutter
from glm_rag_ingest.loaders.base import Loaded
from glm_rag_ingest.plan import Step
from glm_rag_ingest.process import LoaderProcess
from glm_rag_ingest.ray_pipeline import readers as readers_module
from glm_rag_ingest.ray_pipeline.readers import RayReaders
from glm_rag_ingest.ray_pipeline.remote import Contents, NodeReader, NotHere
from glm_rag_ingest.ray_pipeline.setup import Setup
from glm_rag_ingest.reading import Reading, read


def a_step(path, size=10):
    path.write_bytes(b"x" * size)
    (file,) = discover([path]).files
    return Step(file, "read")


class Tasks:
    """Collects what the readers submit."""

    def __init__(self):
        self.submitted = queue.SimpleQueue()
        self.cancelled = []

    def submit(self, step, stored, contents):
        reference = Reference()
        self.submitted.put((step, stored, contents, reference))
        return reference

    def next(self):
        return self.submitted.get(timeout=10)

    def no_more(self):
        with pytest.raises(queue.Empty):
            self.submitted.get(timeout=0.2)


@pytest.fixture
def tasks():
    return Tasks()


@pytest.fixture
def reading(tasks, delivered):
    def begin(steps, **options):
        options = {"most_tasks": 2, **options}
        return RayReaders(
            steps,
            delivered.put,
            tasks.submit,
            tasks.cancelled.append,
            lambda _: Loaded(()),
            **options,
        )

    return begin


def test_no_more_files_are_under_way_than_allowed_nor_more_text(tmp_path, tasks, reading):
    steps = [a_step(tmp_path / f"{n}.txt") for n in range(6)]
    with reading(steps, most_bytes=1000) as pool:
        first, second = tasks.next(), tasks.next()
        tasks.no_more()
        first[-1].finish(Reading(steps[0], num_bytes=5000))
        second[-1].finish(Reading(steps[1], num_bytes=1))
        tasks.no_more()  # too much text waits
        pool.release(5000)
        tasks.next()
        tasks.next()
        tasks.no_more()


def test_a_file_that_the_node_has_not_is_sent_with_its_time(tmp_path, tasks, delivered, reading):
    step = a_step(tmp_path / "a.txt")
    with reading([step]):
        _, _, contents, reference = tasks.next()
        assert contents is None
        reference.finish(NotHere("node 10.0.0.2"))
        _, _, contents, reference = tasks.next()
        assert contents == Contents(b"x" * 10, step.file.path.stat().st_mtime_ns)
        result = Reading(step, num_bytes=1)
        reference.finish(result)
        assert delivered.get(timeout=10) is result


def test_a_file_too_large_to_be_sent_says_where_to_put_it(
    tmp_path, tasks, delivered, reading, monkeypatch
):
    monkeypatch.setattr(readers_module, "MOST_SENT", 5)
    with reading([a_step(tmp_path / "a.txt")]):
        tasks.next()[-1].finish(NotHere("node 10.0.0.2"))
        error = delivered.get(timeout=10).error
    assert isinstance(error, DocumentError)
    assert "put it where all nodes see it" in str(error)
    assert not error.permanent


def test_a_file_whose_worker_dies_is_tried_again_and_given_up_the_third_time(
    tmp_path, tasks, delivered, reading
):
    with reading([a_step(tmp_path / "a.txt")]):
        for _ in range(3):
            tasks.next()[-1].finish(died())
        error = delivered.get(timeout=10).error
        tasks.no_more()
    assert str(error) == "crash: 3 workers died of it; it was killed or crashed"


def test_closing_cancels_what_is_under_way_and_delivers_nothing(
    tmp_path, tasks, delivered, reading
):
    step = a_step(tmp_path / "a.txt")
    with reading([step, step]) as pool:
        references = [tasks.next()[-1], tasks.next()[-1]]
        pool.close()
        references[0].finish(Reading(step))
    assert set(tasks.cancelled) == set(references)
    assert delivered.empty()


def test_what_breaks_in_the_thread_ends_the_run(tmp_path, delivered):
    def broken(*_):
        raise RuntimeError("no connection")

    step = a_step(tmp_path / "a.txt")
    with RayReaders([step], delivered.put, broken, print, print, most_tasks=1):
        assert str(delivered.get(timeout=10)) == "no connection"


@pytest.fixture
def node(embeddings):
    reader = NodeReader(Setup.of(load_config(), embeddings))
    yield reader
    reader.close()


def test_a_copy_that_was_sent_gives_what_the_file_itself_gives(
    tmp_path, node, embeddings, make_zip
):
    """Names of members and of their container, too, and the time."""
    path = tmp_path / "档案 1.zip"
    path.write_bytes(make_zip({"a.txt": b"Text a.", "b/c.md": b"# C\n\nText c.", "d.bin": b"\0"}))
    os.utime(path, ns=(10**18, 1_234_567_890_123_456_789))
    (file,) = discover([path]).files
    step = Step(file, "read")
    with LoaderProcess() as child:
        cutter = Cutter(load_config().splitting, embeddings)
        here = cutter.cut(read(step, child, None))
    there = node.read(step, None, Contents(path.read_bytes(), path.stat().st_mtime_ns))
    assert there.documents == here.documents
    assert len(there.documents) == 3
    assert there.chunks == here.chunks
    assert there.failures == here.failures != ()
    assert there.reading.step == step


def test_a_node_reads_a_file_only_if_it_is_the_very_same(tmp_path, node, monkeypatch):
    monkeypatch.setattr("glm_rag_ingest.ray_pipeline.remote.node_name", lambda: "node x")
    step = a_step(tmp_path / "a.txt")
    assert node.read(step, None, None).num_chunks == 1
    file = step.file
    for other in (replace(file, size=11), replace(file, mtime=1.0), replace(file, path=tmp_path)):
        assert node.read(replace(step, file=other), None, None) == NotHere("node x")
