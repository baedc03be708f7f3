"""Whole knowledge bases in Milvus: one connection for short questions, and who waits for whom."""

import json
import signal
import time

import pytest
from milvus_server import start_server, stop_server

pytest.importorskip("pymilvus")

from glm_rag import stores
from glm_rag.config import load_config
from glm_rag.errors import KnowledgeBaseBusyError, KnowledgeBaseError, StoreUnavailableError
from glm_rag.knowledge.milvus import kept, tables
from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase
from glm_rag.knowledge.milvus.client import Milvus
from glm_rag.knowledge.milvus.naming import Location
from glm_rag.knowledge.milvus.tables import row_of
from glm_rag.templates import PROMPT_FILE


@pytest.fixture
def settings(milvus_location, monkeypatch, hash_embeddings):
    monkeypatch.setattr("glm_rag.embeddings.create_embeddings", lambda _: hash_embeddings())
    store = {"backend": "milvus", "uri": milvus_location.uri, "database": milvus_location.database}
    yield load_config(overrides={f"store.{name}": value for name, value in store.items()})
    kept.close()


@pytest.fixture
def notes(settings, milvus_location, hash_embeddings, make):
    with MilvusKnowledgeBase.open(
        "notes",
        location=milvus_location,
        home=settings.home,
        embeddings=hash_embeddings(),
        create=True,
    ) as kb:
        kb.put_document(*make("a.txt", "Lunch is at noon."))
        yield kb


def ask_everything(settings):
    assert list(stores.list_knowledge_bases(settings)) == ["notes"]
    stores.info_or_error(settings, "notes")
    stores.local_folder(settings, "notes")
    return stores.identity_of(settings, "notes")


def test_short_questions_share_one_connection(settings, notes, monkeypatch):
    made = []
    connect = Location.connect
    monkeypatch.setattr(
        Location, "connect", lambda self, **how: made.append(self) or connect(self, **how)
    )
    assert ask_everything(settings) == ask_everything(settings) > 0
    assert len(made) == 1
    kept.close()
    ask_everything(settings)
    assert len(made) == 2


def test_one_that_was_made_anew_is_told_over_a_connection_that_was_there_before(settings, notes):
    before = stores.identity_of(settings, "notes")
    stores.delete_knowledge_base(settings, "notes")
    with pytest.raises(KnowledgeBaseError, match="no knowledge base 'notes'"):
        stores.identity_of(settings, "notes")
    stores.reopen_knowledge_base(settings, "notes", create=True).close()
    assert stores.identity_of(settings, "notes") not in (0, before)


@pytest.mark.slow
def test_the_connection_heals_when_milvus_was_started_again(tmp_path, home):
    pytest.importorskip("milvus_lite")
    process, port = start_server(tmp_path / "data")
    uri = f"http://127.0.0.1:{port}"
    settings = load_config(overrides={"store.backend": "milvus", "store.uri": uri})
    try:
        stores.reopen_knowledge_base(settings, "notes", create=True).close()
        before = ask_everything(settings)
        stop_server(process)
        with pytest.raises(KnowledgeBaseError, match="no Milvus answers"):
            stores.identity_of(settings, "notes")
        process, _ = start_server(tmp_path / "data", port)
        deadline = time.monotonic() + 20
        while True:
            try:
                assert ask_everything(settings) == before
                break
            except KnowledgeBaseError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        kept.close()
        stop_server(process)


@pytest.mark.slow
def test_a_milvus_that_hangs_is_one_that_does_not_answer(tmp_path, home, monkeypatch):
    pytest.importorskip("milvus_lite")
    monkeypatch.setattr(kept, "_SECONDS", 0.5)
    monkeypatch.setattr("glm_rag.knowledge.milvus.client._CONNECT_SECONDS", 0.5)
    process, port = start_server(tmp_path / "data")
    uri = f"http://127.0.0.1:{port}"
    settings = load_config(overrides={"store.backend": "milvus", "store.uri": uri})
    try:
        stores.reopen_knowledge_base(settings, "notes", create=True).close()
        before = ask_everything(settings)
        process.send_signal(signal.SIGSTOP)
        for ask in (stores.identity_of, stores.local_folder, stores.reopen_knowledge_base):
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="no Milvus answers"):
                ask(settings, "notes")
            assert time.monotonic() - started < 20
        process.send_signal(signal.SIGCONT)
        monkeypatch.undo()
        assert ask_everything(settings) == before
    finally:
        kept.close()
        stop_server(process)


def test_nobody_renames_or_deletes_what_is_being_written(settings, notes, make):
    intent = {"operation": "o", "host": "elsewhere", "pid": 1, "at": time.time(), "versions": []}
    announced = row_of("intent:o-0", "intent", json.dumps({**intent, "roots": []}))
    with notes.writing():
        with pytest.raises(KnowledgeBaseBusyError, match="is being written by"):
            stores.rename_knowledge_base(settings, "notes", "rules")
        with pytest.raises(KnowledgeBaseBusyError, match="is being written by"):
            stores.delete_knowledge_base(settings, "notes")
    notes._milvus.upsert(notes._rows.meta, [announced])
    with pytest.raises(KnowledgeBaseBusyError, match="process 1 on elsewhere"):
        stores.rename_knowledge_base(settings, "notes", "rules")
    with pytest.raises(KnowledgeBaseBusyError, match="process 1 on elsewhere"):
        stores.delete_knowledge_base(settings, "notes")
    assert list(stores.list_knowledge_bases(settings)) == ["notes"]
    notes._milvus.delete_keys(notes._rows.meta, [announced["pk"]])
    stores.rename_knowledge_base(settings, "notes", "rules")
    assert list(stores.list_knowledge_bases(settings)) == ["rules"]
    # Neither leaves the lock in somebody's hands.
    stores.delete_knowledge_base(settings, "rules")


def test_a_renaming_that_was_killed_goes_on_when_it_is_asked_for_again(
    settings, notes, monkeypatch
):
    rename, meta = Milvus.rename, tables.meta_of(tables.stem_of("notes"))

    def killed(self, old, new):
        if old == meta:
            raise KnowledgeBaseError("killed")
        rename(self, old, new)

    with monkeypatch.context() as patch:
        patch.setattr(Milvus, "rename", killed)
        with pytest.raises(KnowledgeBaseError, match="killed"):
            stores.rename_knowledge_base(settings, "notes", "rules")
    stores.rename_knowledge_base(settings, "notes", "rules")
    assert stores.info_or_error(settings, "rules").num_documents == 1


def test_the_words_of_prompts_go_with_a_knowledge_base(settings, notes):
    def words(name):
        return stores.local_folder(settings, name) / PROMPT_FILE

    words("notes").parent.mkdir(parents=True, exist_ok=True)
    words("notes").write_text("en: {page: ' p{page}'}")
    stores.rename_knowledge_base(settings, "notes", "rules")
    assert words("rules").is_file()
    stores.delete_knowledge_base(settings, "rules")
    stores.reopen_knowledge_base(settings, "rules", create=True).close()
    assert not words("rules").exists()
