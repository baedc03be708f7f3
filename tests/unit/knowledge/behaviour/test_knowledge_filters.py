"""Filters by metadata: what they let through, and what they refuse."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_rag.errors import ConfigError
from glm_rag.knowledge import filters

HOUR = 3600
JANUARY_31 = datetime(2026, 1, 31).timestamp()


@pytest.fixture
def files(kb, make, tmp_path, monkeypatch):
    """Three files, a member of an archive, and a text; `texts(filter)` names what is found."""
    monkeypatch.chdir(tmp_path)
    times = {"hr/leave.md": 0, "hr/old/rules.md": 9 * HOUR, "hr2/pay.md": 24 * HOUR}
    for name, seconds in times.items():
        document, chunks = make((tmp_path / name).as_uri(), name)
        text = "中文资料" if "old" in name else name
        document, chunks = make(document.source, text)
        kb.put_document(replace(document, mtime=JANUARY_31 + seconds), chunks)
    document, chunks = make((tmp_path / "hr.zip").as_uri() + "#a/b.md", "member")
    kb.put_document(replace(document, container=(tmp_path / "hr.zip").as_uri()), chunks)
    kb.add_texts(["note"], [{"tag": "x-ray", "n": 3}])

    def texts(where):
        found = kb.similarity_search("q", k=9, filter=where)
        again = kb.candidates(np.ones(8), ["hr", "note"], limit=9, where=where).candidates
        names = {document.page_content for document in found}
        assert {candidate.document.page_content for candidate in again} == names
        return names

    return texts


LEAVE, RULES, PAY, MEMBER, NOTE = "hr/leave.md", "中文资料", "hr2/pay.md", "member", "note"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ({"prefix": "hr"}, {LEAVE, RULES}),
        ({"prefix": "hr/"}, {LEAVE, RULES}),
        ({"prefix": "./hr2/../hr/old"}, {RULES}),
        ({"prefix": "hr/leave.md"}, {LEAVE}),
        ({"prefix": "hr.zip"}, {MEMBER}),
        ({"prefix": ["hr/old", "hr2"]}, {RULES, PAY}),
        ({"prefix": []}, set()),
        ({"prefix": "h"}, set()),
        ({"prefix": "."}, {LEAVE, RULES, PAY, MEMBER}),
        ("hr/leave.md", {LEAVE}),
        (["hr/leave.md", "hr2/pay.md"], {LEAVE, PAY}),
        ("hr", set()),
    ],
)
def test_a_path_is_a_file_or_a_folder_and_all_below_it(files, path, expected):
    assert files({"path": path}) == expected


def test_a_path_may_be_absolute_or_a_uri(files, tmp_path):
    for path in (str(tmp_path / "hr"), (tmp_path / "hr").as_uri(), tmp_path / "hr"):
        where = {"prefix": path if isinstance(path, str) else str(path)}
        assert files({"path": where}) == {LEAVE, RULES}
    assert files({"path": Path("hr/leave.md")}) == {LEAVE}


def test_a_copy_is_found_below_its_own_path(kb, make, tmp_path):
    one, other = ((tmp_path / name).as_uri() for name in ("a/x.md", "b/x.md"))
    document, chunks = make(one, "same bytes")
    kb.put_document(document, chunks)
    kb.add_copy(other, of=one, size=1, mtime=1.0)
    for folder in ("a", "b"):
        where = {"path": {"prefix": str(tmp_path / folder)}}
        assert len(kb.similarity_search("q", filter=where)) == 1


@pytest.mark.parametrize(
    ("mtime", "expected"),
    [
        ({"gte": "2026-01-31"}, {LEAVE, RULES, PAY}),
        ({"gt": "2026-01-31"}, {PAY}),
        ({"gte": "2026-01-31", "lt": "2026-02-01"}, {LEAVE, RULES}),
        ({"gte": "2026-01-31", "lte": "2026-01-31"}, {LEAVE, RULES}),
        ("2026-01-31", {LEAVE, RULES}),
        (["2026-02-01", "2026-02-02"], {PAY}),
        ({"gt": "2026-01-31T00:00", "lte": "2026-01-31T09:00:00"}, {RULES}),
        ({"gte": JANUARY_31 + HOUR, "lt": "2026-02-01"}, {RULES}),
        (JANUARY_31, {LEAVE}),
        (None, {NOTE}),
    ],
)
def test_a_date_is_its_whole_day(files, mtime, expected):
    assert files({"mtime": mtime}) == expected


def test_texts_have_a_time_and_a_language_of_their_document(files):
    today = datetime.now().date().isoformat()
    assert files({"added_at": {"lt": "2020-01-01"}}) == set()
    assert files({"added_at": {"gte": "2020-01-01"}}) == {LEAVE, RULES, PAY, MEMBER, NOTE}
    assert files({"added_at": {"lte": today}}) == {LEAVE, RULES, PAY, MEMBER, NOTE}
    assert files({"document_language": "zh"}) == {RULES}
    assert files({"document_language": ["en"], "tag": "x-ray"}) == {NOTE}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"tag": {"prefix": "x"}}, {NOTE}),
        ({"tag": {"prefix": ["a", "x-"]}}, {NOTE}),
        ({"tag": {"prefix": "%"}}, set()),
        ({"n": {"gt": 2, "lte": 3}}, {NOTE}),
        ({"n": {"gt": 3}}, set()),
        ({"n": {"prefix": "3"}}, set()),
        ({"n": {"lt": "9"}}, set()),
        ({"tag": {"gt": 1}}, set()),
        ({"tag": {"gte": "x"}}, {NOTE}),
        ({"title": {"prefix": "note"}}, set()),
        ({"chunk_index": {"lt": 1}, "path": {"prefix": "hr2"}}, {PAY}),
    ],
)
def test_operators_compare_texts_with_texts_and_numbers_with_numbers(files, where, expected):
    assert files(where) == expected


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"n": {"$gt": 1}}, r"cannot filter 'n' by '\$gt': use prefix, gt, gte, lt, lte"),
        ({"n": {}}, "cannot filter 'n' by nothing"),
        ({"n": {"gt": [1, 2]}}, "cannot filter 'n' by list"),
        ({"n": {"gt": None}}, "cannot filter 'n' by NoneType"),
        ({"n": {"prefix": 1}}, "cannot filter 'n' by the prefix 1: give a text"),
        ({"path": {"gt": "a"}}, "cannot filter 'path' by 'gt': use prefix"),
        ({"path": 7}, "cannot filter 'path' by 7: give a path"),
        ({"path": ""}, "cannot filter 'path' by ''"),
        ({"mtime": "yesterday"}, "cannot filter 'mtime' by 'yesterday': give a date like"),
        ({"added_at": {"gte": "2026-13-01"}}, "give a date like 2026-01-31"),
        ({"document_language": "fr"}, "cannot filter 'document_language' by 'fr': use en or zh"),
        ({7: "x"}, "cannot filter by 7: name a key"),
    ],
)
def test_a_filter_that_cannot_hold_says_what_to_write(kb, where, said):
    kb.add_texts(["one"])
    with pytest.raises(ConfigError, match=said) as raised:
        kb.similarity_search("q", filter=where)
    assert "\n" not in str(raised.value)


@given(st.text(min_size=1).filter(lambda text: "\0" not in text), st.text(max_size=3))
def test_a_prefix_lets_through_exactly_what_begins_with_it(value, prefix):
    import sqlite3

    (condition,) = filters.conditions({"x": {"prefix": prefix}})
    marks = {name: f":{name}" for name in condition.parameters}
    test = condition.test.format(":value", **marks)
    try:
        value.encode(), prefix.encode()
    except UnicodeEncodeError:
        return
    with sqlite3.connect(":memory:") as connection:
        (found,) = connection.execute(
            f"SELECT {test}", {"value": value, **condition.parameters}
        ).fetchone()
    assert bool(found) is value.startswith(prefix)
