"""Whatever a file or the system does to the run, the run goes on and the next one finishes."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest
from langchain_core.embeddings import Embeddings

from glm_rag.config import load_config
from glm_rag.errors import DocumentError, GlmRagError
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag_ingest.pipeline import ingest
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


@pytest.fixture
def evil(docs, monkeypatch):
    """Teach the reading processes `.evil` files; gives a function that writes one."""
    from glm_rag_ingest.loaders import factory

    folder = Path(__file__).parent / "evil_loader"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    factory.versions.cache_clear()
    spec = importlib.util.spec_from_file_location("evil_custom", folder / "sitecustomize.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield lambda act: (docs / "bad.evil").write_text(act)
    sys.modules.pop("glm_rag_ingest.loaders.evil", None)
    factory.BY_SUFFIX.pop(".evil", None)
    factory.versions.cache_clear()  # it knew the evil one


def with_limits(**limits):
    return load_config(overrides={f"ingestion.{name}": value for name, value in limits.items()})


@pytest.mark.parametrize(
    ("act", "permanent", "error"),
    [
        ("hang", False, "timeout: not read within 2 s"),
        ("spin", False, "timeout: not read within 2 s"),
        ("send_half", False, "timeout: not read within 2 s"),
        ("segfault", True, "crash: the parser crashed with SIGSEGV"),
        ("fork_and_crash", True, "crash: the parser crashed with SIGSEGV"),
        ("killed", False, "crash: the process got SIGKILL"),
        ("leave", True, "crash: the parser ended the process with code 3"),
        ("eat", True, "crash: reading it needs more memory than allowed"),
        ("hang_up", True, "crash: the parser ended the process with code 1"),
        ("send_garbage", True, "crash: the parser broke the connection"),
    ],
)
def test_a_bad_parser_costs_its_file_only(kb, docs, evil, act, permanent, error):
    evil(act)
    seconds = 2 if error.startswith("timeout") else 60
    config = with_limits(file_seconds=seconds, file_memory_mb=512, workers=2)
    started = time.monotonic()
    report = ingest(docs, kb, config=config)
    assert time.monotonic() - started < 45, "the limit of a healthy file was spent"
    assert report.num_added == 3
    assert [(f.error.partition(" (")[0], f.permanent) for f in report.failures] == [
        (error, permanent)
    ]
    again = ingest(docs, kb, config=config)
    assert again.num_skipped == (4 if permanent else 3)
    assert ingest(docs, kb, config=config, retry_failed=True).num_skipped == 3


def test_what_a_parser_prints_goes_nowhere(kb, docs, evil, capfd):
    evil("write_to_stdout")
    assert ingest(docs, kb).num_added == 4
    assert capfd.readouterr() == ("", "")


def test_what_a_parser_starts_ends_with_the_run(kb, docs, evil):
    evil("fork_and_go_on")
    assert ingest(docs, kb).num_added == 4
    sleeper = int(kb.get_text((docs / "bad.evil").as_uri()).split()[1])
    assert_ends(sleeper)


def test_others_are_read_while_one_hangs(kb, docs, evil):
    """The file that hangs comes first and keeps one of two readers for its whole limit."""
    evil("hang")
    (docs / "bad.evil").rename(docs / "0.evil")
    for number in range(30):
        (docs / f"more{number}.txt").write_text(f"More {number}.")
    config = with_limits(file_seconds=4, workers=2)
    seen = []
    report = ingest(docs, kb, config=config, on_progress=seen.append)
    assert report.num_added == 33
    assert [f.error for f in report.failures] == ["timeout: not read within 4 s"]
    assert report.changes[-1].action == "failed"


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


def before_reading(monkeypatch, name, act):
    """Do something when the file of that name is about to be read."""
    real = LoaderProcess.load

    def load(self, path):
        if path.name == name:
            act()
        return real(self, path)

    monkeypatch.setattr(LoaderProcess, "load", load)


def test_files_that_vanish_or_change_during_the_run_are_told(kb, docs, monkeypatch):
    def change():
        (docs / "b.txt").unlink(missing_ok=True)
        (docs / "c.txt").write_text("Document c has changed meanwhile.")

    before_reading(monkeypatch, "a.txt", change)
    report = ingest(docs, kb, workers=1)
    assert report.num_added == 2
    assert [f.error for f in report.failures] == ["unreadable: no such file or directory"]
    assert not report.failures[0].permanent
    assert kb.get_text((docs / "c.txt").as_uri()) == "Document c has changed meanwhile."
    assert ingest(docs, kb, prune=True).num_skipped == 2
    assert kb.failures() == []


def test_a_file_that_changes_while_it_is_embedded_is_read_again_next_time(kb, docs, monkeypatch):
    real = type(kb).embed

    def embed(self, texts):
        before = (docs / "a.txt").stat()
        (docs / "a.txt").write_text("This is document A.")
        os.utime(docs / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
        return real(self, texts)

    with monkeypatch.context() as patch:
        patch.setattr(type(kb), "embed", embed)
        assert ingest(docs, kb).num_added == 3
    assert kb.get_text((docs / "a.txt").as_uri()) == "This is document a."
    assert ingest(docs, kb).num_updated == 1
    assert kb.get_text((docs / "a.txt").as_uri()) == "This is document A."


def test_a_file_replaced_by_a_folder_or_pipe_is_a_failure(kb, docs, monkeypatch):
    def replace_both():
        (docs / "b.txt").unlink()
        (docs / "b.txt").mkdir()
        (docs / "c.txt").unlink()
        os.mkfifo(docs / "c.txt")

    before_reading(monkeypatch, "a.txt", replace_both)
    report = ingest(docs, kb, workers=1)
    assert report.num_added == 1
    assert [f.error.partition(":")[0] for f in report.failures] == ["unreadable"] * 2


def test_a_locked_or_full_store_ends_the_run_with_its_reason(kb, docs, monkeypatch):
    from glm_rag.errors import KnowledgeBaseError

    def full(self, *_):
        raise KnowledgeBaseError("the disk is full")

    monkeypatch.setattr(type(kb), "put_documents", full)
    with pytest.raises(KnowledgeBaseError, match="the disk is full"):
        ingest(docs, kb)
    monkeypatch.undo()
    assert ingest(docs, kb).num_added == 3


def assert_ends(pid, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # dead, and not yet collected by init
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still running")
