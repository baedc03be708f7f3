"""What is done to a whole knowledge base is the same wherever it lies."""

from contextlib import closing

import pytest

pytest.importorskip("pymilvus")

from glm_rag.config import load_config
from glm_rag.errors import KnowledgeBaseBusyError
from glm_rag.knowledge import copying
from glm_rag.knowledge.milvus import tables
from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase
from glm_rag.knowledge.milvus.catalogue import fact_row
from glm_rag.knowledge.milvus.naming import list_in
from glm_rag.knowledge.transfer import export, import_file
from glm_rag.stores import (
    delete_knowledge_base,
    in_data_folder,
    into_store,
    list_knowledge_bases,
    local_folder,
    milvus_location,
    rename_knowledge_base,
    reopen_knowledge_base,
    unfinished,
)
from glm_rag.templates import PROMPT_FILE


@pytest.fixture(params=["faiss", "milvus"])
def settings(request, monkeypatch, home):
    if request.param == "milvus":
        location = request.getfixturevalue("milvus_location")
        monkeypatch.setenv("GLM_RAG_STORE__BACKEND", "milvus")
        monkeypatch.setenv("GLM_RAG_STORE__URI", location.uri)
        monkeypatch.setenv("GLM_RAG_STORE__DATABASE", location.database)
    return load_config()


@pytest.fixture
def made(settings, hash_embeddings):
    """Makes a knowledge base with words of its own for prompts, and closes it."""

    def make(name):
        with reopen_knowledge_base(settings, name, hash_embeddings(), create=True) as kb:
            kb.add_texts(["The canteen opens at eight."])
        folder = local_folder(settings, name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROMPT_FILE).write_text("en: {}\n")

    return make


def test_the_words_of_a_deleted_knowledge_base_are_not_those_of_the_next(
    settings, made, hash_embeddings
):
    made("kb")
    delete_knowledge_base(settings, "kb")
    with reopen_knowledge_base(settings, "kb", hash_embeddings(), create=True):
        assert not (local_folder(settings, "kb") / PROMPT_FILE).exists()


def test_one_that_is_being_written_is_neither_renamed_nor_deleted(settings, made, hash_embeddings):
    made("kb")
    with (
        reopen_knowledge_base(settings, "kb", hash_embeddings()) as kb,
        kb.writing(),
    ):
        with pytest.raises(KnowledgeBaseBusyError):
            rename_knowledge_base(settings, "kb", "new")
        with pytest.raises(KnowledgeBaseBusyError):
            delete_knowledge_base(settings, "kb")
        assert list_knowledge_bases(settings) == ["kb"]
        kb.add_texts(["The office has two floors."])
    rename_knowledge_base(settings, "kb", "new")
    assert list_knowledge_bases(settings) == ["new"]


def test_a_new_name_takes_the_words_along_whatever_another_machine_has_deleted(
    settings, made, home, hash_embeddings
):
    made("kb")
    if settings.store.backend == "milvus":
        made("new")
        left = local_folder(settings, "new")
        (left / PROMPT_FILE).write_text("zh: {}\n")
        other = settings.model_copy(update={"home": home / "other"})
        delete_knowledge_base(other, "new")
        assert left.exists()
    rename_knowledge_base(settings, "kb", "new")
    assert (local_folder(settings, "new") / PROMPT_FILE).read_text() == "en: {}\n"
    assert list_knowledge_bases(settings) == ["new"]
    with reopen_knowledge_base(settings, "new", hash_embeddings()) as kb:
        assert kb.info().num_chunks == 1


# In a folder an import gets its name when it is complete; see test_knowledge_transfer.
in_milvus = pytest.mark.parametrize("settings", ["milvus"], indirect=True)


def restore(settings, file, name):
    with into_store(settings) as (home, finish):
        import_file(file, home, name=name)
        finish(name)


def names(settings):
    """Of all knowledge bases, those that no list shows too."""
    with closing(milvus_location(settings).connect()) as milvus:
        return list_in(milvus)


@in_milvus
def test_half_of_an_import_never_passes_for_the_whole(settings, made, tmp_path, monkeypatch):
    made("kb")
    file = tmp_path / "kb.export"
    with in_data_folder(settings, "kb") as home:
        export("kb", home, file)

    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(copying, "_copy_failures", killed)  # every file is there already
        patch.setattr("glm_rag.knowledge.milvus.naming.delete_in", killed)
        with pytest.raises(Killed):
            restore(settings, file, "back")
    assert list_knowledge_bases(settings) == ["kb"]
    assert len(names(settings)) == 2  # what the killed one has left
    monkeypatch.setattr("glm_rag.stores._STALE_NS", 0)
    restore(settings, file, "back")
    assert list_knowledge_bases(settings) == names(settings) == ["back", "kb"]
    with reopen_knowledge_base(settings, "back") as kb:
        assert (kb.info().num_chunks, kb.verify().findings) == (1, ())


@in_milvus
def test_an_import_that_goes_on_for_days_is_not_swept(settings, made):
    slow = f"import-{0:032x}"
    made(slow)
    with closing(milvus_location(settings).connect()) as milvus:
        milvus.upsert(tables.meta_of(tables.stem_of(slow)), [fact_row("born", "1")])
    with unfinished(settings, "new") as temporary:
        made(temporary)
    assert names(settings) == [slow, "new"]


@in_milvus
def test_an_import_that_ends_beside_another_harms_neither(settings, made, tmp_path, monkeypatch):
    made("kb")
    file = tmp_path / "kb.export"
    with in_data_folder(settings, "kb") as home:
        export("kb", home, file)
    gone = "import-" + "0" * 32  # was listed, and has its own name when it is looked at
    with monkeypatch.context() as patch:
        patch.setattr(
            "glm_rag.knowledge.milvus.naming.list_in", lambda milvus: [gone, *list_in(milvus)]
        )
        restore(settings, file, "back")
    assert names(settings) == ["back", "kb"]


@in_milvus
def test_an_import_that_fails_leaves_nothing(settings, made, tmp_path, monkeypatch):
    made("kb")
    file = tmp_path / "kb.export"
    with in_data_folder(settings, "kb") as home:
        export("kb", home, file)

    def fails(*_, **__):
        raise OSError("the line is cut")

    monkeypatch.setattr(MilvusKnowledgeBase, "write_file", fails)
    with pytest.raises(OSError, match="cut"):
        restore(settings, file, "back")
    assert names(settings) == ["kb"]
