"""Names, places and literals of Milvus: whatever a user writes means itself, or is refused."""

import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from milvus_server import free_port
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.errors import ConfigError, KnowledgeBaseError, KnowledgeBaseNotFoundError
from glm_rag.knowledge.milvus import tables
from glm_rag.knowledge.milvus.client import Milvus, as_ours, quoted
from glm_rag.knowledge.milvus.naming import Location, delete_in, list_in, rename_in


@pytest.fixture
def kb(milvus_kb):
    return milvus_kb()


# ---------------------------------------------------------------- names and places


@given(st.text(min_size=1, max_size=64))
def test_every_name_gives_a_name_that_milvus_takes(name):
    stem = tables.stem_of(name)
    assert stem.isascii()
    assert stem.replace("_", "").isalnum()
    assert len(tables.chunks_of(stem, 10**6)) < 255
    assert tables.belongs(tables.chunks_of(stem, 3), stem)
    assert not tables.belongs(tables.docs_of(tables.stem_of(name + "x")), stem)


@pytest.mark.slow
def test_names_of_any_script_live_side_by_side(milvus_kb, milvus_location, make):
    names = ["员工手册", "员工", "a b", "a_b", "a.b", "日本語", "café"]
    for number, name in enumerate(names):
        milvus_kb(name).put_document(*make(f"doc{number}", name))
    milvus = milvus_location.connect()
    assert list_in(milvus) == sorted(names)
    assert milvus_kb("cafe\u0301", create=False).documents()[0].source == "doc6"
    for number, name in enumerate(names):
        assert [d.source for d in milvus_kb(name, create=False).documents()] == [f"doc{number}"]
    delete_in(milvus, "员工")
    assert list_in(milvus) == sorted(set(names) - {"员工"})
    with pytest.raises(KnowledgeBaseNotFoundError, match=r"there are: a b, a\.b"):
        milvus_kb("员工", create=False)
    rename_in(milvus, "a b", "新名")
    assert [d.source for d in milvus_kb("新名", create=False).documents()] == ["doc2"]
    milvus_kb("新名").put_document(*make("more", "text"))
    with pytest.raises(KnowledgeBaseError, match="already"):
        rename_in(milvus, "新名", "a_b")
    milvus.close()


@pytest.mark.parametrize(
    ("given_uri", "uri", "database"),
    [
        ("milvus://host:19530", "http://host:19530", "default"),
        ("milvus://host", "http://host:19530", "default"),
        ("milvus://host:1/team", "http://host:1", "team"),
        ("milvus+https://host:443/team", "https://host:443", "team"),
        ("http://host:19530", "http://host:19530", "default"),
        ("some/file.db", "some/file.db", "default"),
    ],
)
def test_a_place_is_read(given_uri, uri, database):
    assert Location.parse(given_uri) == Location(uri, "", database)


@pytest.mark.parametrize(
    "given_uri", ["", "redis://x", "milvus://", "folder", "milvus://h:99999", "milvus://[::1"]
)
def test_what_is_no_place_is_refused_in_one_line(given_uri):
    with pytest.raises(ConfigError) as raised:
        Location.parse(given_uri)
    assert "\n" not in str(raised.value)


def test_a_token_is_never_shown():
    assert "secret" not in repr(Location("http://x", "user:secret"))


def test_nobody_there_is_said_in_one_line():
    pytest.importorskip("pymilvus")
    started = time.monotonic()
    with pytest.raises(KnowledgeBaseError, match="no Milvus answers at http") as raised:
        Milvus(f"http://127.0.0.1:{free_port()}")
    assert "\n" not in str(raised.value)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("command", [["kb", "list"], ["search", "x", "--kb", "t"]])
def test_without_pymilvus_the_extra_is_named(command, home, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    monkeypatch.setenv("GLM_RAG_STORE__BACKEND", "milvus")
    monkeypatch.setenv("GLM_RAG_STORE__URI", "http://127.0.0.1:1")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert str(done.exception) == 'pymilvus is not installed: run pip install "glm-rag[milvus]"'


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("auth check failure, please check api key is correct", "refuses the token"),
        ("Fail connecting to server on x, illegal connection", "no Milvus answers"),
        ("database 'nope' does not exist", "correct store.database"),
        ("collection 'glm_rag_a_meta' does not exist", "was deleted or renamed meanwhile"),
        ("can't find collection[database=default][collection=glm_rag_a]", "was deleted or renamed"),
        ("unknown method GetLoadState for service", "too old"),
        ("something\nelse", "something else"),
    ],
)
def test_errors_say_what_to_do_in_one_line(said, told):
    line = str(as_ours(said, "http://h:1"))
    assert told in line
    assert "\n" not in line


def test_a_database_that_is_not_there_is_named(milvus_server):
    with pytest.raises(KnowledgeBaseError, match="'nope' does not exist: correct store"):
        Milvus(milvus_server, database="nope")


# ---------------------------------------------------------------- literals


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))
def test_any_text_is_a_literal_that_means_itself_and_nothing_else(milvus_location, text):
    import pymilvus  # noqa: F401
    from milvus_lite.search.filter.parser import parse_expr

    for value in (text, f'" or pk != "{text}', f"\\{text}", f'{text}"] or true'):
        parsed = parse_expr(f"source == {quoted(value)}")
        assert type(parsed).__name__ == "CmpOp"
        assert parsed.right.value == value


@pytest.mark.slow
@pytest.mark.parametrize("evil", ['" or pk != "', '\\" or true', 'x"] or true #', "{v}", "a\nb"])
def test_a_filter_cannot_be_broken_out_of(kb, make, evil):
    kb.add_texts(["one", "two"], [{"tag": evil}, {"tag": "other"}])
    kb.put_document(*make("f", "file"))
    for where, expected in (
        ({"tag": evil}, {"one"}),
        ({"title": evil}, set()),
        ({"source": evil}, set()),
        ({evil.replace('"', "'"): "x"}, set()),
        ({"tag": {"prefix": evil}}, {"one"}),
    ):
        found = kb.similarity_search("x", k=9, filter=where)
        assert {document.page_content for document in found} == expected
