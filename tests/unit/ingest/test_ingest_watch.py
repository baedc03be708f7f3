"""Watching: what changes below the folders is in the knowledge base a moment later."""

from __future__ import annotations

import threading
import time

import pytest

from glm_rag.config import load_config
from glm_rag.errors import ConfigError, GlmRagError, KnowledgeBaseError
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag_ingest import pipeline
from glm_rag_ingest.pipeline import IngestOptions, Listeners
from glm_rag_ingest.watch import watch

pytest.importorskip("watchfiles")


class Watching:
    """`watch` in a thread, and what it told."""

    def __init__(self, docs, options):
        self.changes = []
        self.runs = []
        self._stop = threading.Event()
        self._arguments = ([docs], "w", load_config(), options)
        self._thread = threading.Thread(target=self._watch)

    def _watch(self):
        listeners = Listeners(on_change=self.changes.append)
        watch(*self._arguments, listeners, self.runs.append, stop=self._stop)

    def __enter__(self):
        self._thread.start()
        assert self.wait_for(lambda: self.runs)
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def told(self, action, name):
        return self.wait_for(
            lambda: any(c.action == action and c.source.endswith(name) for c in self.changes)
        )

    def warned(self, words):
        return self.wait_for(
            lambda: any(
                words in warning
                for run in self.runs
                if not isinstance(run, GlmRagError)
                for warning in run.warnings
            )
        )

    def wait_for(self, holds, seconds=30.0):
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("The first text.")
    return folder


@pytest.fixture
def watching(home, docs, embeddings, monkeypatch):
    def open_fast(settings, name, *, create=False):
        return KnowledgeBase.open(name, home=home, embeddings=embeddings, create=create)

    monkeypatch.setattr(pipeline, "open_knowledge_base", open_fast)
    return lambda **options: Watching(docs, IngestOptions(**options))


def test_new_changed_and_removed_files_are_followed(watching, docs):
    with watching(prune=True) as now:
        assert now.told("added", "a.txt")
        (docs / "sub").mkdir()
        (docs / "sub" / "b.txt").write_text("The second text.")
        (docs / "sub" / "stays.txt").write_text("The third text.")
        assert now.told("added", "sub/b.txt")
        (docs / "a.txt").write_text("The first text, changed.")
        assert now.told("updated", "a.txt")
        (docs / "sub" / "b.txt").unlink()
        assert now.told("removed", "sub/b.txt")
        # The last file of a folder is kept, with a warning: its disk may not be mounted.
        (docs / "sub" / "stays.txt").unlink()
        assert now.warned("sub is empty")
        (docs / "sub").rmdir()
        assert now.told("removed", "sub/stays.txt")


def test_a_change_during_the_first_run_is_not_missed(watching, docs, embeddings, monkeypatch):
    real = embeddings.embed_documents

    def embed(texts):
        (docs / "late.txt").write_text("Written while the first run embeds.")
        time.sleep(0.5)
        return real(texts)

    monkeypatch.setattr(embeddings, "embed_documents", embed)
    with watching() as now:
        assert now.told("added", "late.txt")


def test_an_error_ends_a_run_and_not_the_watching(watching, docs, home, monkeypatch):
    with watching() as now:
        with monkeypatch.context() as patch:

            def full(*_):
                raise KnowledgeBaseError("the disk is full")

            patch.setattr(KnowledgeBase, "put_documents", full)
            (docs / "b.txt").write_text("The second text.")
            assert now.wait_for(lambda: any(isinstance(r, GlmRagError) for r in now.runs))
        (docs / "c.txt").write_text("The third text.")
        assert now.told("added", "b.txt")
        assert now.told("added", "c.txt")


def test_the_knowledge_base_inside_the_watched_folder_starts_no_runs(
    docs, watching, home, monkeypatch
):
    now = watching()
    now._arguments = ([home.parent], *now._arguments[1:])
    with now:
        time.sleep(2.0)
        count = len(now.runs)
        assert count <= 2
        (docs / "b.txt").write_text("The second text.")
        assert now.told("added", "b.txt")


def test_nothing_to_watch_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        watch([tmp_path / "no"], "w", load_config(), IngestOptions(), Listeners(), print)
    with pytest.raises(ConfigError, match="pattern"):
        watch([tmp_path], "w", load_config(), IngestOptions(include=("",)), Listeners(), print)
