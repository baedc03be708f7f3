"""What only the Milvus-backed knowledge base has: writers elsewhere, servers, sizes, damage."""

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
from milvus_server import start_server, stop_server

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge.milvus import tables, writing
from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase
from glm_rag.knowledge.milvus.client import Milvus
from glm_rag.knowledge.milvus.naming import Location

TEXT = "Parental leave is sixteen weeks. 育儿假为十六周。 The end."


@pytest.fixture
def kb(milvus_kb):
    return milvus_kb()


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
