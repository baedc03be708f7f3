"""Copies, members, removals: the knowledge base follows what happens to the files."""

from __future__ import annotations

import os
import zipfile

import pytest

from glm_rag.config import load_config
from glm_rag_ingest.pipeline import ingest
from glm_rag_ingest.process import LoaderProcess

LONG_AGO = (1_700_000_000, 1_700_000_000)


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    write(folder / "a.txt", "The first text.")
    write(folder / "b.txt", "The second text.")
    return folder


def write(path, text):
    path.write_text(text)
    os.utime(path, LONG_AGO)


def write_zip(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_", "."), text)


def actions(report):
    return {change.source.rpartition("/")[2]: change.action for change in report.changes}


def search(kb, text):
    return [d.page_content for d in kb.similarity_search(text, k=3)]


# ---------------------------------------------------------------- copies


def test_files_with_the_same_bytes_are_embedded_and_stored_once(kb, docs, embeddings, monkeypatch):
    for number in range(20):
        write(docs / f"copy{number}.txt", "The first text.")
    texts = []
    real = type(kb).embed
    monkeypatch.setattr(type(kb), "embed", lambda self, t: texts.extend(t) or real(self, t))
    report = ingest(docs, kb)
    assert (report.num_added, report.num_copies, report.num_chunks) == (22, 20, 2)
    assert sorted(texts) == ["The first text.", "The second text."]
    assert kb.info().num_chunks == 2
    assert len(kb.known_sources()) == 22
    assert search(kb, "The first text.").count("The first text.") == 1
    monkeypatch.setattr(LoaderProcess, "load", None)
    assert ingest(docs, kb).num_skipped == 22


def test_the_same_bytes_under_another_ending_are_read_as_that_says(kb, docs):
    write(docs / "a.md", "The first text.")
    report = ingest(docs, kb)
    assert (report.num_added, report.num_copies) == (3, 0)


def test_a_copy_outlives_the_file_it_is_a_copy_of(kb, docs):
    write(docs / "copy.txt", "The first text.")
    ingest(docs, kb)
    owner = next(d.source for d in kb.documents() if d.copies)
    other = next(s for s in ("a.txt", "copy.txt") if not owner.endswith(s))
    changed = docs / owner.rpartition("/")[2]
    changed.write_text("Something else.")
    assert actions(ingest(docs, kb)) == {changed.name: "updated"}
    assert kb.get_text((docs / other).as_uri()) == "The first text."
    changed.unlink()
    write(docs / other, "The second text.")
    report = ingest(docs, kb, prune=True)
    assert actions(report) == {other: "copied", changed.name: "removed"}
    assert kb.info().num_chunks == 1
    assert kb.verify().findings == ()


def test_a_copy_whose_first_file_vanishes_stays(kb, docs):
    write(docs / "copy.txt", "The first text.")
    ingest(docs, kb)
    for name in ("a.txt", "copy.txt"):
        text = (docs / name).read_text()
        (docs / name).unlink()
        assert ingest(docs, kb, prune=True).num_deleted == 1
        assert len(kb.known_sources()) == 2
        assert "The first text." in search(kb, text)
        write(docs / name, text)
        assert actions(ingest(docs, kb)) == {name: "copied"}


def test_copies_stay_copies_when_they_are_cut_again(kb, docs):
    write(docs / "copy.txt", "The first text.")
    ingest(docs, kb)
    config = load_config(overrides={"splitting.chunk_tokens": 50})
    report = ingest(docs, kb, config=config)
    assert (report.num_updated, report.num_embedded) == (3, 0)
    assert kb.info().num_chunks == 2
    assert ingest(docs, kb, config=config).num_skipped == 3


def test_the_members_of_an_archive_outlive_it_in_a_copy_that_is_cut_again(kb, docs):
    write_zip(docs / "z.zip", inside_txt="A text inside.")
    ingest(docs, kb)
    (docs / "a.zip").write_bytes((docs / "z.zip").read_bytes())  # comes before the one it copies
    assert actions(ingest(docs, kb)) == {"a.zip": "copied"}
    config = load_config(overrides={"splitting.chunk_tokens": 50})
    ingest(docs, kb, config=config)
    (docs / "z.zip").unlink()
    ingest(docs, kb, config=config, prune=True)
    assert "A text inside." in search(kb, "A text inside.")
    assert kb.verify().findings == ()


# ---------------------------------------------------------------- members


def test_a_file_with_members_is_one_file_of_the_report_and_follows_its_archive(kb, docs):
    write_zip(docs / "z.zip", one_txt="Member one.", two_txt="Member two.", bad_pdf="no")
    source = (docs / "z.zip").as_uri()
    report = ingest(docs, kb)
    assert report.num_added == 3
    assert [f.source for f in report.failures] == [f"{source}#bad.pdf"]
    assert report.failures == tuple(kb.failures())
    assert kb.get_text(f"{source}#one.txt") == "Member one."
    again = ingest(docs, kb)
    assert (again.num_skipped, again.failures) == (3, ())

    write_zip(docs / "z.zip", two_txt="Member two.", three_txt="Member three.")
    report = ingest(docs, kb)
    assert (report.num_updated, report.num_embedded) == (1, 1)
    assert kb.failures() == []
    members = [d.source.partition("#")[2] for d in kb.documents() if d.container]
    assert members == ["three.txt", "two.txt"]

    (docs / "z.zip").unlink()
    report = ingest(docs, kb, prune=True)
    assert actions(report) == {"z.zip": "removed"}
    assert len(kb.documents()) == 2
    assert kb.verify().findings == ()


def test_members_are_cut_again_with_their_archive_and_their_failures_stay(kb, docs, monkeypatch):
    write_zip(docs / "z.zip", one_txt="Member one. " * 40, bad_pdf="no")
    os.utime(docs / "z.zip", LONG_AGO)
    ingest(docs, kb)
    failures = kb.failures()
    config = load_config(overrides={"splitting.chunk_tokens": 50})
    with monkeypatch.context() as patch:
        patch.setattr(LoaderProcess, "load", None)
        report = ingest(docs, kb, config=config)
    assert report.num_resplit == 3
    assert kb.get_document(f"{(docs / 'z.zip').as_uri()}#one.txt").num_chunks > 1
    assert kb.failures() == failures
    assert ingest(docs, kb, config=config).num_skipped == 3


def test_failed_members_are_tried_again_on_request(kb, docs):
    write_zip(docs / "z.zip", one_txt="Member one.", bad_pdf="no")
    os.utime(docs / "z.zip", LONG_AGO)
    ingest(docs, kb)
    report = ingest(docs, kb, retry_failed=True)
    assert (report.num_updated, report.num_skipped, len(report.failures)) == (1, 2, 1)


def test_a_file_in_an_archive_and_beside_it_is_found_under_both_names(kb, docs):
    write_zip(docs / "z.zip", a_txt="The first text.")
    ingest(docs, kb)
    source = (docs / "z.zip").as_uri()
    assert kb.get_text(f"{source}#a.txt") == kb.get_text((docs / "a.txt").as_uri())
    (docs / "a.txt").unlink()
    ingest(docs, kb, prune=True)
    assert kb.get_text(f"{source}#a.txt") == "The first text."


# ---------------------------------------------------------------- time and bytes


def test_a_touched_file_is_compared_and_not_read(kb, docs, monkeypatch):
    ingest(docs, kb)
    os.utime(docs / "a.txt", (1_800_000_000, 1_800_000_000))
    monkeypatch.setattr(LoaderProcess, "load", None)
    report = ingest(docs, kb)
    assert (report.num_skipped, report.changes) == (2, ())
    assert kb.get_document((docs / "a.txt").as_uri()).mtime == 1_800_000_000


def test_only_edited_files_are_embedded_again_and_of_them_only_what_is_new(kb, docs):
    paragraphs = [f"Paragraph {i}. " + "It says something. " * 30 for i in range(6)]
    write(docs / "long.md", "\n\n".join(f"# Part {i}\n\n{p}" for i, p in enumerate(paragraphs)))
    first = ingest(docs, kb)
    paragraphs[3] = "Another text here. " * 30
    write(docs / "long.md", "\n\n".join(f"# Part {i}\n\n{p}" for i, p in enumerate(paragraphs)))
    os.utime(docs / "long.md", (1_700_000_001, 1_700_000_001))
    report = ingest(docs, kb)
    assert (report.num_updated, report.num_embedded) == (1, 1)
    assert report.num_chunks == first.num_chunks - 2


def test_a_file_is_read_with_its_own_limits_of_time_and_memory(kb, docs, monkeypatch):
    limits = []
    real = LoaderProcess.__init__

    def init(self, *, timeout, memory):
        limits.append((timeout, memory))
        real(self, timeout=timeout, memory=memory)

    monkeypatch.setattr(LoaderProcess, "__init__", init)
    config = load_config(overrides={"ingestion.file_seconds": 7, "ingestion.file_memory_mb": 1000})
    ingest(docs, kb, config=config, workers=2)
    assert limits == [(7, 10**9)] * 2
