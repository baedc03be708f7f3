"""What only the Milvus-backed knowledge base has: names, places, literals, damage, machines."""

import dataclasses
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from milvus_server import free_port, start_server, stop_server
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.errors import ConfigError, KnowledgeBaseError, KnowledgeBaseNotFoundError
from glm_rag.knowledge.milvus import tables, writing
from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase
from glm_rag.knowledge.milvus.client import Milvus, explain, quoted
from glm_rag.knowledge.milvus.naming import Location, delete_in, list_in, rename_in

TEXT = "Parental leave is sixteen weeks. 育儿假为十六周。 The end."


@pytest.fixture
def milvus_kb(milvus_location, home, hash_embeddings):
    opened = []

    def open_one(name="kb", **options):
        options = {"create": True, "embeddings": hash_embeddings(), **options}
        opened.append(
            MilvusKnowledgeBase.open(name, location=milvus_location, home=home, **options)
        )
        return opened[-1]

    yield open_one
    for kb in opened:
        kb.close()


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


@pytest.mark.parametrize("given_uri", ["", "redis://x", "milvus://", "folder", "milvus://h:99999"])
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
        ("unknown method GetLoadState for service", "too old"),
        ("something\nelse", "something else"),
    ],
)
def test_errors_say_what_to_do_in_one_line(said, told):
    line = explain(said, "http://h:1")
    assert told in line
    assert "\n" not in line


def test_a_database_that_is_not_there_is_named(milvus_server):
    with pytest.raises(KnowledgeBaseError, match="'nope' does not exist: correct store"):
        Milvus(milvus_server, database="nope")


# ---------------------------------------------------------------- literals


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
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


# ---------------------------------------------------------------- damage


@pytest.fixture
def filled(kb, make):
    document, chunks = make("a.txt", TEXT)
    chunks[1] = dataclasses.replace(chunks[1], headings=("Rules",), section=(0, 30))
    kb.put_document(document, chunks)
    kb.put_document(*make("b.txt", "another document"))
    kb.add_copy("c.txt", of="b.txt", size=1, mtime=2.0)
    kb.add_texts(["a text of no file"], [{"source": "elsewhere"}])
    assert kb.verify().findings == ()
    return kb


def changed(kb, **values):
    """The first chunk of a.txt with other values."""
    from glm_rag.knowledge.milvus.chunk_rows import ALL_FIELDS

    chunks = kb._rows.state().chunks
    row = kb._milvus.query(chunks, 'source == "a.txt" and chunk_index == 0', ALL_FIELDS)[0]
    kb._milvus.upsert(chunks, [{**row, **values}])


def strays(kb):
    row = kb._milvus.query(kb._rows.texts, 'kind == "text"', ["*"])[0]
    row |= {"pk": "text:stray", "version": "0", "flat": tables.FLAT}
    kb._milvus.upsert(kb._rows.texts, [row])


def unfinished(kb):
    body = {"roots": [], "versions": ["v"], "operation": "o", "host": "gone", "pid": 1, "at": 0.0}
    kb._milvus.upsert(kb._rows.meta, [tables.row_of("intent:o-0", "intent", json.dumps(body))])


DAMAGES = {
    "a chunk moved": (lambda kb: changed(kb, start=1), "chunk", "kb remove"),
    "its text": (lambda kb: changed(kb, text="other"), "chunk", "kb remove"),
    "its id": (lambda kb: changed(kb, key="other"), "chunk", "kb remove"),
    "its words": (lambda kb: changed(kb, terms="tabc"), "keywords", "kb rebuild"),
    "its vector": (lambda kb: changed(kb, vector=np.ones(8)), "vector", "--embed"),
    "a chunk lost": (
        lambda kb: kb._milvus.delete(
            kb._rows.state().chunks, 'source == "a.txt" and chunk_index == 0'
        ),
        "chunk",
        "kb remove",
    ),
    "a text lost": (
        lambda kb: kb._milvus.delete(kb._rows.texts, 'kind == "text"'), "document", "kb remove"
    ),
    "a stray part": (strays, "index", "kb rebuild"),
    "a killed writer": (unfinished, "database", "kb rebuild"),
    "a copy of nothing": (
        lambda kb: kb._milvus.delete(kb._rows.docs, 'kind == "root" and key == "'
                                     + tables.hashed("b.txt") + '"'),
        "document",
        "kb rebuild",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found_and_mended_as_it_says(filled, make, what):
    damage, check, mend = DAMAGES[what]
    damage(filled)
    found = filled.verify().findings
    assert check in {finding.check for finding in found}
    assert any(mend in finding.mend for finding in found)
    if mend != "kb remove":
        filled.rebuild(embed=mend == "--embed")
    else:
        for line in {finding.mend for finding in found}:
            for source in re.findall('kb remove "([^"]+)"', line):
                filled.remove(source)
    assert filled.verify().findings == ()


def test_another_machines_writer_is_waited_for_an_hour_and_then_cleaned_up(
    filled, make, monkeypatch
):
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    monkeypatch.setattr(writing.Writer, "_commit", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        filled.put_document(*make("d.txt", "of the other machine"))
    monkeypatch.undo()
    filled.put_document(*make("e.txt", "mine"))
    assert len(filled._rows.state().intents) == 1
    monkeypatch.setattr(writing, "_STALE_SECONDS", -1.0)
    filled.put_document(*make("f.txt", "mine"))
    assert filled._rows.state().intents == ()
    assert filled.verify().findings == ()


def test_a_writer_is_gone_with_its_process_or_after_an_hour():
    here, now = socket.gethostname(), time.time()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    def is_stale(**values):
        body = {"operation": "o", "host": here, "pid": os.getppid(), "at": now, **values}
        return writing._is_stale(body)

    assert not is_stale()
    assert is_stale(pid=gone.pid)
    assert is_stale(at=now - 3700)  # its number may be another process's by now
    assert not is_stale(host="elsewhere", pid=gone.pid)
    assert is_stale(host="elsewhere", at=now - 3700)
    assert is_stale(pid=os.getpid())  # not one of ours that is under way


def test_a_writer_taken_for_dead_does_not_commit(filled, make, monkeypatch):
    real = writing.Writer._write_rows

    def slow(self, *arguments):
        real(self, *arguments)
        filled._milvus.delete(filled._rows.meta, 'kind == "intent"')

    monkeypatch.setattr(writing.Writer, "_write_rows", slow)
    with pytest.raises(KnowledgeBaseError, match="took this one for dead"):
        filled.put_document(*make("a.txt", "newer"))
    assert filled.get_text("a.txt") == TEXT


# ---------------------------------------------------------------- rebuilding, servers, sizes


@pytest.mark.slow
def test_another_embedder_takes_over_and_an_open_reader_is_told(filled, milvus_kb, hash_embeddings):
    reader = milvus_kb()
    before = filled.known_sources()
    filled.rebuild(embeddings=hash_embeddings("other", dimension=4))
    assert filled.info().dimension == 4
    assert filled.known_sources() == before
    assert filled.verify().findings == ()
    with pytest.raises(KnowledgeBaseError, match="was rebuilt with other"):
        reader.similarity_search("x")


@pytest.mark.slow
def test_large_collections_count_words_in_milvus_alike(filled, monkeypatch):
    from glm_rag.knowledge.milvus import statistics

    terms = ["leave", "育儿", "text", "unknown"]
    small = filled.candidates(np.ones(8), terms, limit=3)
    monkeypatch.setattr(statistics, "_MOST_COUNTED", 0)
    filled._searches._statistics._change = None
    large = filled.candidates(np.ones(8), terms, limit=3)
    assert large == small


@pytest.mark.parametrize("most_counted", [20_000, 0])
def test_many_new_chunks_are_flushed_once_and_found_as_before(filled, monkeypatch, most_counted):
    """milvus-lite makes its index of words anew for each question from what is not flushed."""
    from glm_rag.knowledge.milvus import statistics

    monkeypatch.setattr(statistics, "_MOST_COUNTED", most_counted)
    asked = np.ones(8), ["leave", "育儿"]
    before = filled.candidates(*asked, limit=3)
    flushed = []
    real = Milvus.flush
    monkeypatch.setattr(
        Milvus, "flush", lambda self, name: (flushed.append(name), real(self, name))
    )
    monkeypatch.setattr(statistics, "_MOST_LOOSE", 2)
    filled.add_texts([f"text {number}" for number in range(3)], ids=["x", "y", "z"])
    filled.candidates(*asked, limit=3)
    filled.candidates(*asked, limit=3)
    assert flushed == [filled._rows.state().chunks]
    filled.delete(["x", "y", "z"])
    assert filled.candidates(*asked, limit=3) == before
    assert filled.verify().findings == ()


@pytest.mark.slow
def test_it_is_there_when_the_server_was_started_again(tmp_path, home, make, hash_embeddings):
    """To who opens it then, and to who had it open all the time."""
    pytest.importorskip("milvus_lite")
    process, port = start_server(tmp_path / "data")
    location = Location(f"http://127.0.0.1:{port}")

    def opened():
        embeddings = hash_embeddings()
        return MilvusKnowledgeBase.open(
            "kb", location=location, home=home, embeddings=embeddings, create=True
        )

    try:
        with opened() as old:
            old.put_document(*make("a", TEXT))
            before = old.known_sources(), old.similarity_search("x", k=9)
            stop_server(process)
            with pytest.raises(KnowledgeBaseError, match="no Milvus answers"):
                old.similarity_search("x", k=9)
            process, _ = start_server(tmp_path / "data", port)
            assert eventually(lambda: (old.known_sources(), old.similarity_search("x", k=9))) == (
                before
            )
            old.put_document(*make("b", TEXT))
            assert old.verify().findings == ()
            with opened() as new:
                assert new.known_sources() == old.known_sources()
                assert new.verify().findings == ()
    finally:
        stop_server(process)


def eventually(ask, seconds=30.0):
    """A connection that broke is made again after a second or two."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except KnowledgeBaseError as error:
            if "no Milvus answers" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def test_a_local_file_is_a_knowledge_base_too(tmp_path, home, make, hash_embeddings):
    """Also when it was closed, and is opened by another process."""
    pytest.importorskip("milvus_lite")
    from milvus_lite.server_manager import server_manager_instance

    file = str(tmp_path / "own.db")
    for number in range(2):
        with MilvusKnowledgeBase.open(
            "kb", location=Location(file), home=home, embeddings=hash_embeddings(), create=True
        ) as kb:
            assert [d.source for d in kb.documents()] == ["a"][:number]
            kb.put_document(*make("a", TEXT))
            assert kb.similarity_search("x", k=1)
            assert kb.verify().findings == ()
        server_manager_instance.release_server(file)  # as the end of a process does


def test_what_milvus_does_not_take_is_refused_before_anything_is_written(kb, make):
    document, chunks = make("a" * 70_000, "text")
    with pytest.raises(KnowledgeBaseError, match="more than 65535 bytes"):
        kb.put_document(document, chunks)
    assert kb.documents() == []


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_one_whole_version(
    milvus_kb, milvus_location, home, make
):
    from milvus_writer import VERSIONS

    kb = milvus_kb()
    kb.put_document(*make("a", VERSIONS[0]))
    whole = [{chunk.text for chunk in make("a", text)[1]} for text in VERSIONS]
    chance = random.Random(3)
    program = [sys.executable, str(Path(__file__).with_name("milvus_writer.py"))]
    for _ in range(4):
        writer = subprocess.Popen(
            [*program, milvus_location.uri, milvus_location.database, str(home)],
            stdout=subprocess.PIPE,
        )
        writer.stdout.readline()
        time.sleep(chance.uniform(0, 0.3))
        writer.kill()
        writer.communicate()
        assert {chunk.page_content for chunk in kb.get_chunks("a")} in whole
        found = kb.candidates(np.ones(8), ["version"], limit=200).candidates
        assert {candidate.document.page_content for candidate in found} in whole
    kb.put_document(*make("b", "after all of them"))
    assert kb._rows.state().intents == ()
    assert kb.verify().findings == ()
