"""Whatever a file or the system does to the run, the run goes on and the next one finishes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from langchain_core.embeddings import Embeddings

from glm_rag.config import load_config
from glm_rag.errors import DocumentError, GlmRagError
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag_ingest.pipeline import Ingestion, ingest
from glm_rag_ingest.process import LoaderProcess


class TinyEmbeddings(Embeddings):
    name = "tiny"

    def embed_query(self, text):
        return [byte + 1.0 for byte in hashlib.sha256(text.encode()).digest()[:8]]

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


@pytest.fixture
def kb(home):
    with KnowledgeBase.open("f", home=home, embeddings=TinyEmbeddings(), create=True) as opened:
        yield opened


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(f"This is document {name}.")
    return folder


def after(seconds, act):
    timer = threading.Timer(seconds, act)
    timer.start()
    return timer


def hit_while_reading(run, name, *signals):
    """Make the child stand still at a file, then send it signals."""

    def on_progress(progress):
        if progress.current.endswith(name):
            pid = run._loader.pid
            os.kill(pid, signal.SIGSTOP)
            after(0.2, lambda: [os.kill(pid, number) for number in signals])

    run._on_progress = on_progress


@pytest.mark.parametrize(
    ("signals", "permanent", "error"),
    [
        ((signal.SIGKILL,), False, "crash: the process got SIGKILL"),
        ((signal.SIGSEGV, signal.SIGCONT), True, "crash: the parser crashed with SIGSEGV"),
    ],
)
def test_a_worker_that_dies_costs_one_file(kb, docs, signals, permanent, error):
    run = Ingestion(docs, kb, load_config())
    hit_while_reading(run, "b.txt", *signals)
    report = run.run()
    assert report.num_added == 2
    assert [(f.error, f.permanent) for f in report.failures] == [(error, permanent)]
    again = ingest(docs, kb)
    assert (again.num_added, again.num_skipped) == ((0, 3) if permanent else (1, 2))


def test_a_worker_that_hangs_is_killed_and_costs_one_file(kb, docs):
    run = Ingestion(docs, kb, load_config(), load_timeout=0.5)
    hit_while_reading(run, "b.txt")
    report = run.run()
    assert report.num_added == 2
    assert [f.error for f in report.failures] == ["timeout: not read within 0.5 s"]
    assert not report.failures[0].permanent
    assert ingest(docs, kb).num_added == 1


def test_a_file_that_needs_too_much_memory_costs_itself_only(tmp_path):
    (tmp_path / "big.txt").write_bytes(b"word " * 12_000_000)
    (tmp_path / "small.txt").write_text("small")
    with LoaderProcess(memory=200 << 20) as child:
        with pytest.raises(DocumentError, match=r"^crash: ") as caught:
            child.load(tmp_path / "big.txt")
        assert caught.value.permanent
        assert child.load(tmp_path / "small.txt").documents[0].text == "small"


def test_a_worker_that_cannot_start_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (tmp_path / "a.txt").write_text("a")
    with LoaderProcess() as child, pytest.raises(GlmRagError, match="cannot start the process"):
        child.load(tmp_path / "a.txt")


def test_modules_in_the_working_folder_are_never_run(tmp_path, monkeypatch):
    (tmp_path / "docx.py").write_text("raise SystemExit('run from the documents')")
    (tmp_path / "json.py").write_text("raise SystemExit('run from the documents')")
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    with LoaderProcess() as child:
        assert child.load(tmp_path / "a.txt").documents[0].text == "a"


def test_files_that_vanish_or_change_during_the_run_are_told(kb, docs):
    def on_progress(progress):
        if progress.current.endswith("a.txt"):
            (docs / "b.txt").unlink(missing_ok=True)
            (docs / "c.txt").write_text("Document c has changed meanwhile.")

    report = ingest(docs, kb, on_progress=on_progress)
    assert report.num_added == 2
    assert [f.error for f in report.failures] == ["unreadable: no such file or directory"]
    assert not report.failures[0].permanent
    assert kb.get_text((docs / "c.txt").as_uri()) == "Document c has changed meanwhile."
    assert ingest(docs, kb, prune=True).num_skipped == 2
    assert kb.failures() == []


def test_a_file_replaced_by_a_folder_or_pipe_is_a_failure(kb, docs):
    def on_progress(progress):
        if progress.current.endswith("a.txt") and (docs / "b.txt").is_file():
            (docs / "b.txt").unlink()
            (docs / "b.txt").mkdir()
            (docs / "c.txt").unlink()
            os.mkfifo(docs / "c.txt")

    report = ingest(docs, kb, on_progress=on_progress)
    assert report.num_added == 1
    assert [f.error.partition(":")[0] for f in report.failures] == ["unreadable"] * 2


def test_a_locked_or_full_store_ends_the_run_with_its_reason(kb, docs, monkeypatch):
    from glm_rag.errors import KnowledgeBaseError

    def full(self, *_):
        raise KnowledgeBaseError("the disk is full")

    monkeypatch.setattr(type(kb), "put_document", full)
    with pytest.raises(KnowledgeBaseError, match="the disk is full"):
        ingest(docs, kb)
    monkeypatch.undo()
    assert ingest(docs, kb).num_added == 3


SLOW_RUN = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_ingest_faults import TinyEmbeddings
    from glm_rag.config import load_config
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag_ingest.pipeline import Ingestion

    class Slow(TinyEmbeddings):
        def embed_documents(self, texts):
            time.sleep(0.1)
            return super().embed_documents(texts)

    with KnowledgeBase.open("f", home=Path({home!r}), embeddings=Slow(), create=True) as kb:
        run = Ingestion({docs!r}, kb, load_config())
        run._on_progress = lambda p: print(p.done, run._loader.pid, flush=True)
        run.run()
"""


def test_a_run_killed_at_any_moment_loses_nothing_and_the_next_one_finishes(home, tmp_path):
    docs = tmp_path / "many"
    docs.mkdir()
    for i in range(30):
        (docs / f"{i:02}.txt").write_text(f"This is document number {i}.")
    code = textwrap.dedent(SLOW_RUN).format(
        tests=str(Path(__file__).parent), home=str(home), docs=str(docs)
    )
    worker = 0
    for stop_at in (3, 11):
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                done, _, pid = line.partition(" ")
                worker = int(pid) if pid.strip().isdigit() else worker
                if int(done) == stop_at:
                    break
            process.kill()
    assert worker
    assert_ends(worker)
    with KnowledgeBase.open("f", home=home, embeddings=TinyEmbeddings()) as kb:
        finished = len(kb.documents())
        assert 3 <= finished < 30
        report = ingest(docs, kb)
        assert (report.num_added, report.num_skipped) == (30 - finished, finished)
        assert len(kb.documents()) == kb.info().num_chunks == 30
        assert kb.check_offsets() == []


def assert_ends(pid, seconds=10.0):
    """A worker whose parent was killed must not stay."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # dead, and not yet collected by init
            return
        time.sleep(0.05)
    pytest.fail(f"worker {pid} is still running")
