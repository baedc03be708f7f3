"""Snapshots of the index are worth nothing but time."""

import logging

import pytest

from glm_rag.knowledge import index as module


def snapshots(kb):
    return sorted(path.name for path in (kb.path / "index").glob("*"))


def found(kb):
    return sorted(d.page_content for d in kb.similarity_search("x", k=100))


@pytest.fixture
def stored(open_kb, make):
    """A closed knowledge base with a snapshot."""
    with open_kb() as kb:
        for name in "abc":
            kb.put_document(*make(name, f"text of {name}"))
    return kb


def forbid_rebuild(monkeypatch):
    def refuse(*args):
        raise AssertionError("vectors were read from SQLite")

    monkeypatch.setattr(module.VectorIndex, "_add_new", refuse)


def test_closing_after_a_change_writes_one_snapshot(stored):
    assert snapshots(stored) == ["1.faiss"]


def test_a_snapshot_spares_reading_the_vectors(stored, open_kb, monkeypatch):
    kb = open_kb()
    monkeypatch.setattr(module, "_BATCH", 1)
    monkeypatch.setattr(
        module.VectorIndex,
        "_add_new",
        lambda self, connection: self._last_id == 3 or pytest.fail("snapshot not used"),
    )
    assert found(kb) == ["text of a", "text of b", "text of c"]


def test_reading_writes_no_snapshot(stored, open_kb):
    with open_kb() as kb:
        found(kb)
    assert snapshots(stored) == ["1.faiss"]


def test_a_new_snapshot_replaces_the_old_one(stored, open_kb, make):
    with open_kb() as kb:
        kb.put_document(*make("d", "text of d"))
    assert snapshots(stored) == ["2.faiss"]


def test_what_is_newer_and_what_is_gone_is_followed(stored, open_kb, make):
    kb = open_kb()
    kb.put_document(*make("d", "text of d"))
    kb.remove("a")
    kb.put_document(*make("b", "b anew"))
    assert found(kb) == ["b anew", "text of c", "text of d"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-45])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def forge(path):
    path.write_bytes(b"IxM2" + bytes(100))


@pytest.mark.parametrize(
    "harm", [truncate, flip, forge, lambda path: path.unlink(), lambda path: path.write_bytes(b"")]
)
def test_a_lost_or_damaged_snapshot_loses_nothing(stored, open_kb, caplog, harm):
    harm(stored.path / "index" / "1.faiss")
    with caplog.at_level(logging.WARNING):
        assert found(open_kb()) == ["text of a", "text of b", "text of c"]
    assert "rebuilding the index" in caplog.text


def test_a_snapshot_of_another_database_is_not_used(stored, open_kb, make):
    with open_kb("other") as other:
        for name in "xyz":
            other.put_document(*make(name, f"text of {name}"))
    theirs = (other.path / "index" / "1.faiss").read_bytes()
    (stored.path / "index" / "1.faiss").write_bytes(theirs)
    kb = open_kb()
    assert kb.similarity_search("text of a", k=1)[0].page_content == "text of a"


def test_a_snapshot_that_cannot_be_written_loses_nothing(open_kb, make, caplog):
    with open_kb() as kb:
        kb.put_document(*make("a", "text of a"))
        (kb.path / "index").write_text("in the way")
    assert "no snapshot of the index" in caplog.text
    assert found(open_kb()) == ["text of a"]


def test_half_written_snapshots_are_swept(stored, open_kb, make, monkeypatch):
    (stored.path / "index" / "dead.tmp").write_bytes(b"half")
    monkeypatch.setattr(module, "_STALE_SECONDS", -1.0)
    with open_kb() as kb:
        kb.put_document(*make("d", "text of d"))
    assert snapshots(stored) == ["2.faiss"]


def test_nothing_in_the_folder_is_pickled(stored):
    heads = [path.read_bytes()[:2] for path in stored.path.rglob("*") if path.is_file()]
    assert heads
    assert not any(head.startswith(b"\x80") for head in heads)
