"""The full-text search stays cheap however common a question's words are."""

import numpy as np
import pytest

from glm_rag.knowledge import filters, search

pytest.importorskip("faiss")


@pytest.fixture
def kb(kb, make):
    """Chunk n of 40 holds `common`, every second `half`, every tenth `tenth`, and `n<n>`."""
    for number in range(1, 41):
        words = ["common", f"n{number}"]
        words += ["half"] * (number % 2 == 0) + ["tenth"] * (number % 10 == 0)
        kb.put_document(*make(f"doc{number}", " ".join(words), size=100))
    return kb


def candidates(kb, *terms, limit=100, allowed=None):
    with kb._database.read() as connection:
        frequencies = search.document_frequencies(connection, terms)
        allowed = None if allowed is None else np.array(allowed, dtype=np.int64)
        return search.sparse_candidates(connection, frequencies, limit, allowed=allowed)


def test_all_terms_are_used_while_they_can_be_ranked(kb):
    assert sorted(candidates(kb, "n7", "tenth", "common")) == list(range(1, 41))


def test_common_terms_are_left_out_when_rarer_ones_exist(kb, monkeypatch):
    monkeypatch.setattr(search, "_MAX_MATCHES", 10)
    assert sorted(candidates(kb, "common", "n7", "tenth", "half")) == [7, 10, 20, 30, 40]


def test_of_one_common_term_alone_only_the_newest_chunks_are_ranked(kb, monkeypatch):
    monkeypatch.setattr(search, "_MAX_MATCHES", 10)
    assert sorted(candidates(kb, "common")) == list(range(31, 41))
    assert sorted(candidates(kb, "half", "common")) == list(range(22, 41, 2))


def test_a_filter_is_kept_whatever_is_common(kb, monkeypatch):
    monkeypatch.setattr(search, "_MAX_MATCHES", 10)
    assert sorted(candidates(kb, "common", allowed=[2, 3, 9])) == [2, 3, 9]
    assert candidates(kb, "common", allowed=[]) == []
    assert candidates(kb, "n7", allowed=[8]) == []
    assert candidates(kb, "unknown") == []


def test_at_most_as_many_as_wanted_are_given(kb):
    assert len(candidates(kb, "common", limit=3)) == 3


@pytest.mark.parametrize("where", [{"source": "doc7"}, {"source": ["doc7", "doc9"], "page": None}])
def test_a_filter_by_file_reads_no_other_chunks(kb, where):
    with kb._database.read() as connection:
        statements = []
        connection.set_trace_callback(statements.append)
        found = filters.matching_ids(connection, where)
        connection.set_trace_callback(None)
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statements[-1]}").fetchall()
    assert set(found.tolist()) <= {7, 9}
    assert len(found) > 0
    details = [row[3] for row in plan]
    assert not [line for line in details if line.startswith("SCAN c") and "INDEX" not in line]
