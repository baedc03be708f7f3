"""Snapshots of a knowledge base are worth nothing but time."""

import logging

import pytest

pytest.importorskip("faiss")
from vector_store import SMALL

from glm_rag.knowledge.index import VectorIndex
from glm_rag.knowledge.vectors import snapshots as module


def files(kb):
    return sorted(path.name for path in (kb.path / "index").glob("*"))


def found(kb):
    return sorted(d.page_content for d in kb.similarity_search("x", k=100))


TEXTS = [f"text of {name}" for name in "abcdefghijkl"]


@pytest.fixture
def open_small(open_kb):
    """Knowledge bases that write a snapshot from eleven chunks on."""

    def open_one(name="kb"):
        kb = open_kb(name)
        kb._index = VectorIndex(kb._database, SMALL)
        return kb

    return open_one


@pytest.fixture
def stored(open_small, make):
    """A closed knowledge base with a snapshot."""
    with open_small() as kb:
        for text in TEXTS:
            kb.put_document(*make(text[-1], text))
    return kb


def test_closing_after_many_changes_writes_one_snapshot(stored):
    assert files(stored) == ["1.faiss"]


def test_a_snapshot_spares_reading_the_vectors(stored, open_small):
    kb = open_small()
    found(kb)
    part = kb._index._state.parts["en"]
    assert (part.snapshot.num_vectors, len(part.tail)) == (len(TEXTS), 0)


def test_reading_writes_no_snapshot(stored, open_small):
    with open_small() as kb:
        found(kb)
    assert files(stored) == ["1.faiss"]


def test_closing_after_a_small_change_writes_none_either(stored, open_small, make):
    with open_small() as kb:
        kb.put_document(*make("new", "text of new"))
    assert files(stored) == ["1.faiss"]


def test_what_is_newer_and_what_is_gone_is_followed(stored, open_small, make):
    kb = open_small()
    kb.put_document(*make("new", "text of new"))
    kb.remove("a")
    kb.put_document(*make("b", "b anew"))
    assert found(kb) == sorted(["b anew", "text of new", *TEXTS[2:]])


def test_deleting_everything_is_followed(stored, open_small, make):
    kb, other = open_small(), open_small()
    assert found(kb) == found(other) == TEXTS
    kb.delete()
    assert found(kb) == found(other) == []
    kb.put_document(*make("new", "text of new"))
    assert found(kb) == found(other) == ["text of new"]


def test_a_snapshot_of_another_database_is_not_used(stored, open_small, make, caplog):
    with open_small("other") as other:
        for text in TEXTS:
            other.put_document(*make(text, f"other {text}"))
    theirs = (other.path / "index" / "1.faiss").read_bytes()
    (stored.path / "index" / "1.faiss").write_bytes(theirs)
    kb = open_small()
    assert kb.similarity_search("text of a", k=1)[0].page_content == "text of a"
    assert "1.faiss is damaged: rebuilding" in caplog.text


def test_a_snapshot_that_cannot_be_written_loses_nothing(open_small, make, caplog):
    with open_small() as kb, caplog.at_level(logging.WARNING):
        for text in TEXTS:
            kb.put_document(*make(text, text))
        (kb.path / "index").write_text("in the way")
        kb.close()
    assert "no snapshot of the index" in caplog.text
    assert found(open_small()) == TEXTS


def test_nothing_in_the_folder_is_pickled(stored):
    heads = [path.read_bytes()[:2] for path in stored.path.rglob("*") if path.is_file()]
    assert heads
    assert not any(head.startswith(b"\x80") for head in heads)


def test_the_checksum_is_of_all_blocks_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_HASH_BLOCK", 1000)
    monkeypatch.setattr(module, "_READ_BLOCK", 300)
    path = tmp_path / "file"
    sums = set()
    first, second = b"a" * 1000, b"b" * 1000
    for data in (b"", b"c", first + second, second + first, first + second + b"c", first * 2):
        path.write_bytes(data)
        sums.add(module.checksum(path))
        assert module.checksum(path) in sums
    assert len(sums) == 6
