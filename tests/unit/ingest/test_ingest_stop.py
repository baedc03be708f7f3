"""A run that another thread stops, and one that may not leave some folders."""

import threading
from functools import partial

import pytest

pytest.importorskip("faiss")

from glm_rag.config import load_config
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag_ingest.pipeline import Ingestion, IngestOptions, Listeners
from word_embeddings import WordEmbeddings


@pytest.fixture
def kb(home):
    with KnowledgeBase.open("kb", home=home, embeddings=WordEmbeddings(), create=True) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for number in range(10):
        (files / f"{number}.txt").write_text(f"Sentence {number} of the long report. " * 300)
    return files


def run(kb, folder, **options):
    return Ingestion([folder], kb, load_config(), IngestOptions(workers=1, **options)).run()


def test_a_stopped_run_returns_and_the_next_one_does_the_rest(kb, folder):
    kb.embeddings.gate.clear()
    ingestion = Ingestion([folder], kb, load_config(), IngestOptions(workers=1))
    reports = []
    thread = threading.Thread(target=lambda: reports.append(ingestion.run()))
    thread.start()
    ingestion.stop()
    kb.embeddings.gate.set()
    thread.join(30)
    (report,) = reports
    assert report.interrupted
    assert report.num_added == kb.info().num_documents < 10
    rest = run(kb, folder)
    assert not rest.interrupted
    assert rest.num_added == 10 - report.num_added
    assert kb.info().num_documents == 10
    assert kb.verify().num_findings == 0


def test_a_stop_in_the_middle_keeps_finished_files(kb, folder):
    for number in range(10, 60):
        (folder / f"{number}.txt").write_text(f"Sentence {number} of the long report. " * 300)
    ingestion = None

    def watch(progress):
        if progress.done >= 4:
            ingestion.stop()

    ingestion = Ingestion(
        [folder], kb, load_config(), IngestOptions(workers=1), Listeners(on_progress=watch)
    )
    report = ingestion.run()
    assert report.interrupted
    assert 4 <= report.num_added < 60
    assert kb.info().num_documents == report.num_added
    with kb.writing():  # the lock is free again
        pass


def test_a_run_that_was_stopped_before_it_began_does_nothing(kb, folder):
    ingestion = Ingestion([folder], kb, load_config(), IngestOptions(workers=1))
    ingestion.stop()
    assert ingestion.run().interrupted
    assert kb.info().num_documents == 0


def test_a_stop_does_not_prune(kb, folder):
    run(kb, folder)
    (folder / "0.txt").unlink()
    (folder / "new.txt").write_text("A new sentence.")
    ingestion = Ingestion([folder], kb, load_config(), IngestOptions(workers=1, prune=True))
    ingestion.stop()
    assert ingestion.run().num_deleted == 0
    assert kb.info().num_documents == 10


def test_within_keeps_links_from_leading_out(kb, folder, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "a.txt").write_text("A secret sentence.")
    (folder / "link").symlink_to(secret)
    (folder / "b.txt").symlink_to(secret / "a.txt")
    (tmp_path / "other-name").symlink_to(folder)
    inside = partial(run, kb, folder)
    report = inside(within=(tmp_path / "other-name",))
    assert report.num_added == 10
    assert {failed.error for failed in report.failures} == {
        "unreadable: outside the folders that may be read"
    }
    assert all("secret" in failed.source for failed in report.failures)
    assert inside().num_added == 1
