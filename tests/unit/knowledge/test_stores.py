"""What is done to a whole knowledge base is the same wherever it lies."""

import pytest

from glm_rag.config import load_config
from glm_rag.errors import KnowledgeBaseBusyError
from glm_rag.stores import (
    delete_knowledge_base,
    list_knowledge_bases,
    local_folder,
    rename_knowledge_base,
    reopen_knowledge_base,
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
