"""A knowledge base as one file, and back: complete, checked, and never over another one."""

import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.conversations import CONVERSATIONS_FILE, ConversationStore
from glm_rag.errors import ConfigError, KnowledgeBaseError, KnowledgeBaseNotFoundError
from glm_rag.knowledge import transfer
from glm_rag.knowledge.naming import list_knowledge_bases
from glm_rag.knowledge.uploads import uploads_folder
from glm_rag.types import IngestFailure

TEXT = "Parental leave is sixteen weeks. 育儿假为十六周。 The end."


@pytest.fixture
def filled(kb, make):
    kb.put_document(*make("a.txt", TEXT))
    kb.put_document(*make("gone.txt", "to be removed " * 50))
    kb.remove("gone.txt")
    kb.add_copy("b.txt", of="a.txt", size=1, mtime=2.0)
    kb.add_texts(["a text of no file"], [{"source": "elsewhere"}])
    kb.record_failure(IngestFailure("bad.pdf", "load", "encrypted", permanent=True))
    kb.keep_vectors(["left over"], kb.embed(["left over"]))
    return kb


@pytest.fixture
def file(filled, home, tmp_path):
    transfer.export("kb", home, tmp_path / "x.kb")
    return tmp_path / "x.kb"


def all_of(kb):
    tables = ("documents", "copies", "chunks", "vectors", "failures", "totals")
    return [kb._database.rows(f"SELECT * FROM {table} ORDER BY 1") for table in tables]


def no_rest(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_what_is_exported_is_what_is_imported(filled, file, home, open_kb, make):
    report = transfer.import_file(file, home, name="other")
    assert (report.name, report.num_documents, report.findings) == ("other", 2, ())
    other = open_kb("other")
    assert all_of(other) == all_of(filled)
    assert other.similarity_search("x", k=9) == filled.similarity_search("x", k=9)
    assert other._database.get_meta("export") is None
    assert other.put_document(*make("n", "new")) == "added"
    assert other.verify().findings == ()
    assert no_rest(home / "kb")
    assert no_rest(file.parent)


def test_an_export_is_one_plain_file_that_names_nothing_outside(file):
    with closing(sqlite3.connect(file)) as connection:
        seal = json.loads(
            connection.execute("SELECT value FROM meta WHERE key = 'export'").fetchone()[0]
        )
        assert (seal["format"], seal["name"], len(seal["sha256"])) == (1, "kb", 64)
        for table in ("pending_vectors", "snapshots", "deletions"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
        assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert os.listdir(file.parent).count("x.kb-wal") == 0  # noqa: PTH208


def test_an_export_while_somebody_writes_holds_one_moment(kb, make, home, tmp_path):
    """Documents are written in pairs; every export holds both of a pair or none."""
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            document, chunks = make(f"{number}", f"text {number}")
            member, inside = make(f"{number}#m", f"member {number}")
            kb.put_documents(
                [(d, c, kb.embed_chunks(c)) for d, c in ((document, chunks), (member, inside))]
            )
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(5):
            transfer.export("kb", home, tmp_path / f"{number}.kb")
            report = transfer.import_file(tmp_path / f"{number}.kb", home, name=f"copy{number}")
            assert report.num_documents % 2 == 0
    finally:
        stop.set()
        thread.join()


def test_a_file_is_overwritten_only_when_forced(file, home):
    before = file.read_bytes()
    with pytest.raises(KnowledgeBaseError, match="exists: choose another name"):
        transfer.export("kb", home, file)
    assert file.read_bytes() == before
    transfer.export("kb", home, file, force=True)


def test_an_export_that_fails_leaves_nothing(filled, home, tmp_path, monkeypatch):
    with pytest.raises(KnowledgeBaseError, match=r"there is no folder .*no: make it") as caught:
        transfer.export("kb", home, tmp_path / "no" / "x.kb")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(transfer, "_digest", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        transfer.export("kb", home, tmp_path / "x.kb")
    assert no_rest(tmp_path)
    assert not (tmp_path / "x.kb").exists()


def test_an_export_without_permission_names_the_folder(filled, home, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(KnowledgeBaseError, match=r"no permission to write into .*change its mode"):
        transfer.export("kb", home, tmp_path / "x.kb")


def test_an_export_takes_the_longest_name_there_is(filled, home, tmp_path):
    transfer.export("kb", home, tmp_path / ("x" * 255))
    assert [len(path.name) for path in tmp_path.glob("x*")] == [255]


def test_import_never_touches_a_knowledge_base_that_exists(filled, file, home):
    with pytest.raises(KnowledgeBaseError, match="there is a knowledge base 'kb' already"):
        transfer.import_file(file, home)
    assert filled.get_text("a.txt") == TEXT


def change(file, *statements):
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def refused(file, home, match):
    with pytest.raises((KnowledgeBaseError, ConfigError), match=match) as caught:
        transfer.import_file(file, home, name="other")
    assert "\n" not in str(caught.value)
    assert list_knowledge_bases(home) == ["kb"]
    assert no_rest(home / "kb")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE documents SET text = 'Parental leave is sixty weeks.' WHERE id = 1",
        "UPDATE vectors SET vector = zeroblob(32) WHERE id = 1",
        "DELETE FROM failures",
        "UPDATE meta SET value = 'another' WHERE key = 'embeddings'",
        "UPDATE chunks SET content_hash = 'x'",
    ],
)
def test_a_changed_row_is_found(file, home, statement):
    change(file, statement)
    refused(file, home, "is damaged or cut off: copy it again")


def test_what_the_seal_does_not_cover_is_verified(file, home):
    change(file, "UPDATE totals SET num_terms = 0")
    refused(file, home, "is damaged or cut off.*chunks of 0 terms")


def test_a_flipped_or_cut_file_is_found(file, home):
    data = file.read_bytes()
    for position in range(5000, len(data), 9973):
        flipped = bytearray(data)
        flipped[position] ^= 0xFF
        file.write_bytes(flipped)
        try:
            report = transfer.import_file(file, home, name="other")
        except KnowledgeBaseError:
            continue
        # A byte that holds nothing.
        assert report.findings == ()
        shutil.rmtree(home / "kb" / "other")
    file.write_bytes(data[: len(data) // 2])
    refused(file, home, "is damaged or cut off")


@pytest.mark.parametrize("content", [b"", b"not a database at all " * 500, b"PK\x03\x04"])
def test_what_is_no_export_is_refused(filled, home, tmp_path, content):
    (tmp_path / "x.kb").write_bytes(content)
    refused(tmp_path / "x.kb", home, "is no export")
    refused(tmp_path / "missing.kb", home, "there is no file")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM meta WHERE key = 'export'",
        "CREATE TRIGGER evil AFTER DELETE ON meta BEGIN DELETE FROM documents; END",
        "CREATE VIEW evil AS SELECT 1",
        "DROP TABLE copies",
    ],
)
def test_a_file_with_other_tables_or_triggers_is_refused(file, home, statement):
    change(file, statement)
    refused(file, home, "is no export")


def test_a_newer_file_says_upgrade(file, home):
    change(file, "PRAGMA user_version = 99")
    refused(file, home, "newer glm-rag .*: upgrade")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "..", ".hidden", "a/b", "a\0b", ""])
def test_a_name_cannot_leave_the_data_folder(file, home, name):
    with closing(sqlite3.connect(file)) as connection:
        seal = json.loads(
            connection.execute("SELECT value FROM meta WHERE key = 'export'").fetchone()[0]
        )
        connection.execute(
            "UPDATE meta SET value = ? WHERE key = 'export'", (json.dumps({**seal, "name": name}),)
        )
        connection.commit()
    for action in (
        lambda: transfer.import_file(file, home),
        lambda: transfer.rename("kb", name, home),
        lambda: transfer.export(name, home, file.with_name("y.kb")),
    ):
        with pytest.raises(ConfigError, match="cannot name a knowledge base"):
            action()


def test_renaming_keeps_everything(filled, home, open_kb):
    before = all_of(filled)
    filled.close()
    transfer.rename("kb", "neu", home)
    assert list_knowledge_bases(home) == ["neu"]
    assert all_of(open_kb("neu")) == before


def test_conversations_and_uploads_go_along_with_another_name(filled, home):
    filled.close()
    uploads = uploads_folder("kb", home)
    uploads.mkdir(parents=True)
    with closing(ConversationStore(home / CONVERSATIONS_FILE)) as store:
        store.add_turn("me", store.start("me", "kb").id, "How long?")
        transfer.rename("kb", "neu", home)
        assert len(store.list("me", kb="neu")) == 1
    assert uploads_folder("neu", home) == uploads
    assert uploads_folder("kb", home) != uploads


def test_a_name_that_cannot_be_changed_takes_nothing_along(filled, home, monkeypatch):
    filled.close()
    uploads = uploads_folder("kb", home)
    uploads.mkdir(parents=True)

    def refuse(*_):
        raise PermissionError(13, "not yours")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(KnowledgeBaseError, match="not yours"):
            transfer.rename("kb", "neu", home)
    assert uploads_folder("kb", home) == uploads
    assert not (home / CONVERSATIONS_FILE).exists()


def test_renaming_is_refused_where_it_would_hurt(filled, home, open_kb):
    open_kb("taken")
    with pytest.raises(KnowledgeBaseError, match="'taken' already"):
        transfer.rename("kb", "taken", home)
    with pytest.raises(KnowledgeBaseNotFoundError):
        transfer.rename("missing", "new", home)
    with filled.writing(), pytest.raises(KnowledgeBaseError) as caught:
        transfer.rename("kb", "new", home)
    assert "is being written by process" in str(caught.value)
    assert str(caught.value).endswith("try again when it is done")  # there is no --wait


def test_the_commands_do_it(filled, home, tmp_path):
    def run(*arguments):
        done = CliRunner().invoke(app, ["kb", *arguments])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    target = str(tmp_path / "x.kb")
    exported = json.loads(run("export", "kb", target, "--json"))
    assert exported["num_bytes"] == os.path.getsize(target)  # noqa: PTH202
    assert "all checked" in run("import", target, "--name", "two")
    assert json.loads(run("import", target, "--name", "three", "--json"))["num_documents"] == 2
    assert "Renamed two to four" in run("rename", "two", "four")
    assert list_knowledge_bases(home) == ["four", "kb", "three"]
