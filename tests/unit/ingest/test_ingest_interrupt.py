"""Ctrl-C ends a run soon, keeps what is finished, and the next run goes on."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from counted import titles

from glm_rag.config import load_config
from glm_rag_ingest.pipeline import Ingestion, IngestOptions, Listeners, ingest


def test_ctrl_c_keeps_what_is_in_and_the_next_run_goes_on(kb, docs):
    def stop(progress):
        if progress.done == 1:
            raise KeyboardInterrupt

    run = Ingestion(docs, kb, load_config(), listeners=Listeners(stop))
    with pytest.raises(KeyboardInterrupt):
        run.run()
    first = run.report()
    assert first.interrupted
    assert len(first.changes) == 1
    assert len(titles(kb)) == first.num_added
    second = ingest(docs, kb)
    assert not second.interrupted
    assert len(second.changes) == 2
    assert titles(kb) == ["rain.txt", "Snow"]


def sentences(count):
    """A chunk each."""
    return "\n\n".join(f"Sentence {i} is about this and that. " * 20 for i in range(count))


def test_vectors_of_a_file_that_is_not_finished_are_kept(kb, docs, embeddings, monkeypatch):
    """Six and eight of eight: the second batch has a whole file and a part of the next one."""
    embeddings.batch_size = 2  # a call holds eight
    real = embeddings.embed_documents
    all_read = threading.Event()
    monkeypatch.setattr(embeddings, "embed_documents", lambda t: all_read.wait(60) and real(t))
    for file in docs.iterdir():
        file.unlink()
    for name in "abc":
        text = sentences(6).replace("Sentence", f"Sentence {name}")
        (docs / f"{name}.txt").write_text(text)

    def stop(progress):
        if progress.current.endswith("c.txt"):
            all_read.set()
        if progress.num_embedded > 6:
            raise KeyboardInterrupt

    run = Ingestion(docs, kb, load_config(), IngestOptions(workers=1), Listeners(stop))
    with pytest.raises(KeyboardInterrupt):
        run.run()
    first, second = run.report(), ingest(docs, kb)
    assert first.num_embedded > first.num_chunks
    assert first.num_embedded + second.num_embedded == first.num_chunks + second.num_chunks


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_does_not_wait_until_a_book_is_cut(
    kb, docs, embeddings, monkeypatch, request, number
):
    # A shell starts its background jobs with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    counted, counts = threading.Event(), []

    def slow(text):
        counted.set()
        counts.append(text)
        time.sleep(0.05)
        return 10

    def interrupt():
        assert counted.wait(60)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(embeddings, "count_tokens", slow)
    (docs / "book.txt").write_text("A sentence of some length. " * 5000)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        ingest(docs, kb)
    assert len(counts) < 600  # of 5000 sentences, and each is counted more than once
    assert signal.getsignal(number) is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
