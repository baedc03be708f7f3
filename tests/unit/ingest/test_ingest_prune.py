"""What `prune` removes, and what it leaves alone."""

from __future__ import annotations

from counted import counts, titles

from glm_rag_ingest.pipeline import ingest


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
