"""A knowledge base of the first schema opens with everything in it, whenever it is killed."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("faiss")
import knowledge_writer as writer

from glm_rag import sqlite_file
from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import records, schema
from glm_rag.text import detect_language


def write_version_1(home, num_documents):
    """A knowledge base as the version before wrote it."""
    folder = home / "kb" / "kb"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "library.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(schema.MIGRATIONS[0])
        connection.execute("PRAGMA user_version = 1")
        connection.execute("BEGIN")
        for number in range(num_documents):
            _insert(connection, *writer.version(number, f"doc{number}"))
        connection.execute("INSERT INTO meta VALUES ('embeddings', 'counting')")
        connection.execute("INSERT INTO meta VALUES ('dimension', '2')")
        connection.execute("UPDATE meta SET value = '7' WHERE key = 'change'")
        connection.execute("INSERT INTO failures VALUES ('bad.pdf', 'load', 'x', 1, 1.0, 'f')")
        connection.execute("INSERT INTO snapshots VALUES (3, 'abc', 1, 1)")
        connection.execute("COMMIT")
    return folder / "library.sqlite"


def _insert(connection, document, chunks):
    cursor = connection.execute(
        "INSERT INTO documents (source, title, language, sha256, size, mtime, media_type, "
        "parser_version, pages, warnings, added_at, num_characters, text) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, '[]', '[]', 1.0, ?, ?)",
        (
            document.source,
            document.title,
            detect_language(document.text),
            document.sha256,
            document.size,
            document.mtime,
            document.media_type,
            document.parser_version,
            len(document.text),
            document.text,
        ),
    )
    document_id = cursor.lastrowid
    vectors = writer.CountingEmbeddings().embed_documents([chunk.text for chunk in chunks])
    for index, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True)):
        found = records.search_terms((), "", chunk.text)
        values = (document_id, index, chunk.start, chunk.end, None, "en", len(found))
        row_id = connection.execute(
            "INSERT INTO chunks (key, document_id, chunk_index, start_offset, end_offset, page, "
            "language, num_terms, content_hash, headings, extra, terms, text) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '[]', NULL, ?, ?)",
            (
                chunk.id_for(document.source),
                *values,
                chunk.content_hash,
                records.pack(found),
                chunk.text,
            ),
        ).lastrowid
        unit = np.asarray(vector) / np.linalg.norm(vector)
        connection.execute("INSERT INTO vectors VALUES (?, ?)", (row_id, records.blob(unit)))
        connection.execute(
            "INSERT INTO chunk_terms (rowid, terms) VALUES (?, ?)", (row_id, " ".join(found))
        )


def everything(path):
    """All that the first schema keeps."""
    queries = (
        "SELECT source, title, sha256, size, mtime, text, added_at FROM documents ORDER BY id",
        "SELECT id, key, document_id, chunk_index, start_offset, end_offset, text FROM chunks",
        "SELECT id, vector FROM vectors ORDER BY id",
        "SELECT * FROM failures",
    )
    with closing(sqlite3.connect(path)) as connection:
        return [connection.execute(query).fetchall() for query in queries]


def test_a_knowledge_base_of_the_version_before_opens_and_keeps_everything(home):
    path = write_version_1(home, 5)
    before = everything(path)
    with writer.open_kb(home) as kb:
        assert kb.verify().findings == ()
        assert [info.source for info in kb.documents()] == [f"doc{n}" for n in range(5)]
        assert kb.info().num_chunks == 5 * writer.NUM_CHUNKS
        assert len(kb.similarity_search("x", k=1000)) == 5 * writer.NUM_CHUNKS
        found = kb.candidates(np.ones(2), ["version"], limit=3)
        assert found.document_frequency == {"version": 5 * writer.NUM_CHUNKS}
        assert kb._database.value("SELECT count(*) FROM chunks WHERE embedding_hash IS NULL") == 200
        assert everything(path) == before
        assert kb.put_document(*writer.version(9, "doc1")) == "updated"
        assert kb.remove("doc2")
        kb.add_copy("copy", of="doc3", size=1, mtime=1.0)
        assert kb.verify().findings == ()


MIGRATE_AND_DIE = """
    import os, signal, sqlite3, sys
    from glm_rag import sqlite_file
    from glm_rag.knowledge import schema

    path, stop_at = sys.argv[1], int(sys.argv[2])
    real, done = sqlite_file._statements, 0

    def statements(script):
        global done
        for statement in real(script):
            yield statement
            done += 1
            if done == stop_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sqlite_file._statements = statements
    schema.migrate(sqlite3.connect(path, isolation_level=None))
    print(done)
"""


def migrate(path, stop_at):
    code = textwrap.dedent(MIGRATE_AND_DIE)
    command = [sys.executable, "-c", code, str(path), str(stop_at)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def version_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def test_dying_after_any_statement_of_a_migration_leaves_the_version_before(home):
    path = write_version_1(home, 2)
    before = everything(path)
    num_statements = len(list(sqlite_file._statements(schema.MIGRATIONS[1])))
    for stop_at in {1, 2, num_statements // 2, num_statements}:
        assert migrate(path, stop_at).returncode == -signal.SIGKILL
        assert version_of(path) == 1
        assert everything(path) == before
    done = migrate(path, -1)
    assert (done.returncode, done.stdout.strip()) == (0, str(num_statements))
    assert version_of(path) == schema.SCHEMA_VERSION
    with writer.open_kb(home) as kb:
        assert kb.verify().findings == ()
    assert everything(path) == before


def kill_at_random(home, rounds, seed):
    chance = random.Random(seed)
    versions = set()
    for number in range(rounds):
        base = home / str(number)
        path = write_version_1(base, 40)
        before = everything(path)
        code = textwrap.dedent(MIGRATE_AND_DIE)
        command = [sys.executable, "-c", code, str(path), "-1"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            time.sleep(chance.uniform(0.05, 0.35))
            process.kill()
        versions.add(version_of(path))
        assert everything(path) == before
        with writer.open_kb(base) as kb:
            assert kb.verify().findings == ()
        assert everything(path) == before
    return versions


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_migration_killed_at_any_moment_is_one_version_or_the_other(home):
    assert kill_at_random(home, rounds=15, seed=3) <= {1, schema.SCHEMA_VERSION}


def test_an_old_file_that_may_not_be_written_says_so(home):
    path = write_version_1(home, 1)
    with pytest.MonkeyPatch.context() as patch:
        from glm_rag.knowledge import database

        patch.setattr(database, "_is_writable", lambda *_: False)
        with pytest.raises(KnowledgeBaseError, match="open it once with permission to write"):
            writer.open_kb(home)
    assert version_of(path) == 1
    assert json.dumps(everything(path)[3]) == '[["bad.pdf", "load", "x", 1, 1.0, "f"]]'
