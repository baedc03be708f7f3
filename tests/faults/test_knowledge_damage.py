"""Damaged files, full disks, locks and missing permissions give one clear line."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from glm_rag import sqlite_file
from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import database as module

pytest.importorskip("faiss")
import knowledge_writer as writer


@pytest.fixture
def file(home):
    """The file of a closed knowledge base with twenty documents."""
    with writer.open_kb(home, create=True) as kb:
        for number in range(20):
            kb.put_document(*writer.version(number, f"doc{number}"))
    return home / "kb" / "kb" / module.FILE_NAME


def one_line(caught):
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_says_damaged(home, file):
    file.write_bytes(b"not a database at all " * 1000)
    with pytest.raises(KnowledgeBaseError, match=r"library\.sqlite is damaged .* backup") as caught:
        writer.open_kb(home)
    one_line(caught)


def check(home):
    with writer.open_kb(home) as kb:
        kb.verify()


@pytest.mark.parametrize("size", [100, 4096, 50_000])
def test_a_truncated_file_says_damaged(home, file, size):
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(KnowledgeBaseError, match="is damaged") as caught:
        check(home)
    one_line(caught)


def test_damaged_pages_say_damaged(home, file):
    data = bytearray(file.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    file.write_bytes(bytes(data))
    with pytest.raises(KnowledgeBaseError, match="is damaged"):
        check(home)


def test_an_emptied_file_is_not_taken_for_a_new_knowledge_base(home, file):
    file.write_bytes(b"")
    with pytest.raises(KnowledgeBaseError, match="is empty: restore it"):
        writer.open_kb(home)


def fill(kb):
    for number in range(100, 200):
        kb.put_document(*writer.version(number, f"doc{number}"))


def test_a_full_disk_keeps_what_was_there(home, file):
    with writer.open_kb(home) as kb:
        connection = kb._database._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(KnowledgeBaseError, match="is full: free some space") as caught:
            fill(kb)
        one_line(caught)
        connection.execute("PRAGMA max_page_count = 1000000")
        assert kb.verify().findings == ()
        assert kb.get_document("doc0").num_chunks == writer.NUM_CHUNKS
        assert kb.put_document(*writer.version(300, "after")) == "added"


def test_a_lock_that_is_held_too_long_says_so(home, file, monkeypatch):
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with writer.open_kb(home) as kb:
        assert kb.info().num_documents == 20
        with pytest.raises(KnowledgeBaseError, match="another process has been writing") as caught:
            kb.put_document(*writer.version(1))
        one_line(caught)
        other.execute("ROLLBACK")
        other.close()
        assert kb.put_document(*writer.version(1)) == "added"


AS_NOBODY = """
    import os, sys
    sys.path.insert(0, {tests!r})
    import knowledge_writer as writer
    from pathlib import Path
    from glm_rag.errors import KnowledgeBaseError
    os.setgid(65534)
    os.setuid(65534)
    home = Path({home!r})
    with writer.open_kb(home) as kb:
        print(len(kb.similarity_search("x", k=5)))
        for act in (
            lambda: kb.put_document(*writer.version(1)),
            lambda: writer.open_kb(home / "new", create=True),
        ):
            try:
                act()
            except KnowledgeBaseError as error:
                print(error)
"""


def test_without_write_permission_one_can_search_and_writing_is_refused_clearly(file):
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can become somebody without permission")
    home = Path(tempfile.mkdtemp())
    shutil.copytree(file.parents[1], home / "kb")
    home.chmod(0o755)
    code = textwrap.dedent(AS_NOBODY).format(tests=str(Path(__file__).parent), home=str(home))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    shutil.rmtree(home)
    assert done.returncode == 0, done.stderr
    found, write, make = done.stdout.splitlines()
    assert found == "5"
    assert write.startswith(f"no permission to write into {home}")
    assert "GLM_RAG_HOME" in write
    assert make.startswith("cannot use")
    assert "Permission denied" in make
