"""What cannot be read or embedded is listed, kept as it was, and tried again when it should be."""

from __future__ import annotations

import os

from counted import counts

from glm_rag_ingest.pipeline import ingest
from glm_rag_ingest.process import LoaderProcess


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


def test_a_missing_path_is_a_failure_beside_the_rest(kb, docs, home):
    report = ingest([docs / "rain.txt", docs / "typo.txt"], kb)
    assert counts(report) == (1, 0, 0, 0, 1)
    assert "no such file or folder" in report.failures[0].error
    assert kb.failures() == []
    assert counts(ingest(docs / "typo.txt", "new")) == (0, 0, 0, 0, 1)
    assert not (home / "kb" / "new").exists()


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


def test_warnings_name_the_file_and_are_kept(kb, docs, make_pdf, pdf_text):
    (docs / "scan.pdf").write_bytes(
        make_pdf(pdf_text("One page has enough text to read."), "10 10 200 200 re f")
    )
    report = ingest(docs, kb)
    (warning,) = report.warnings
    assert warning.startswith("scan.pdf: page 2: no text layer; OCR")
    kept = kb.get_document((docs / "scan.pdf").as_uri()).warnings
    assert kept == (warning.removeprefix("scan.pdf: "),)
