"""What the pages keep of knowledge bases, and when they look again."""

import shutil

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("faiss")

from glm_rag.config import load_config
from glm_rag.errors import ConfigError, KnowledgeBaseError
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.types import IngestFailure
from glm_rag_ingest.places import allowed_path
from glm_rag_ui import backend, shelf
from word_embeddings import WordEmbeddings


def make(home, name, *texts):
    with KnowledgeBase.open(name, home=home, embeddings=WordEmbeddings(), create=True) as kb:
        kb.add_texts(list(texts) or ["one"])


def test_another_file_in_the_same_folder_is_another_knowledge_base(home):
    make(home, "a")
    before = backend.identity(load_config(), "a")
    file = home / "kb" / "a" / "library.sqlite"
    shutil.copy(file, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)
    assert backend.identity(load_config(), "a") != before


def test_totals_are_read_again_when_somebody_has_written(home, monkeypatch):
    monkeypatch.setattr("glm_rag.embeddings.create_embeddings", lambda _settings: WordEmbeddings())
    make(home, "a")
    assert [info.num_chunks for info in shelf.infos(load_config())] == [1]
    make(home, "a", "two", "three")
    make(home, "b")
    assert [(i.name, i.num_chunks) for i in shelf.infos(load_config())] == [("a", 3), ("b", 1)]


def test_a_shelf_in_milvus_is_seen_and_changed_as_one_on_the_disk(home, monkeypatch, tmp_path):
    pytest.importorskip("milvus_lite")
    monkeypatch.setattr("glm_rag.embeddings.create_embeddings", lambda _settings: WordEmbeddings())
    monkeypatch.setenv("GLM_RAG_STORE__BACKEND", "milvus")
    monkeypatch.setenv("GLM_RAG_STORE__URI", str(tmp_path / "kb.db"))
    settings = load_config()

    def seen():
        return [(i.name, i.num_chunks, i.num_failures, i.error) for i in shelf.infos(settings)]

    shelf.create(settings, "a")
    with pytest.raises(KnowledgeBaseError, match="already"):
        shelf.create(settings, "a")
    assert seen() == [("a", 0, 0, "")]
    with backend.open_knowledge_base(settings, "a") as kb:
        kb.add_texts(["one", "two"])
        assert seen() == [("a", 2, 0, "")]
        kb.record_failure(IngestFailure("file:///x.pdf", "load", "encrypted: no password", True))
    assert seen() == [("a", 2, 1, "")]
    upload = settings.home / "uploads" / "a" / "x.md"
    upload.parent.mkdir(parents=True)
    upload.write_text("x")
    shelf.rename(settings, "a", "b")
    assert seen() == [("b", 2, 1, "")]
    assert shelf.uploaded_file(settings, "b", upload.as_uri()) == upload
    shelf.delete(settings, "b")
    assert seen() == []
    assert not upload.exists()
    shelf.create(settings, "b")
    assert seen() == [("b", 0, 0, "")]
    assert not (home / "kb").exists()


@pytest.mark.parametrize("text", ["", "  ", "/", "..", "/etc", "~", "a\x00b", "/allowed-too"])
def test_nothing_but_what_lies_inside_is_allowed(tmp_path, text):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    with pytest.raises(ConfigError, match="outside"):
        allowed_path(text.replace("/allowed", str(allowed)), [allowed])
    assert allowed_path(f" {allowed}/./ ", [allowed]) == allowed.resolve()
    (tmp_path / "link").symlink_to(allowed)
    assert allowed_path(str(allowed), [tmp_path / "link"]) == allowed.resolve()


def test_only_uploads_are_deleted_with_their_documents(home, tmp_path):
    settings = load_config()
    inside = settings.home / "uploads" / "a" / "x y.md"
    inside.parent.mkdir(parents=True)
    inside.write_text("x")
    assert shelf.uploaded_file(settings, "a", inside.as_uri()) == inside
    assert shelf.uploaded_file(settings, "b", inside.as_uri()) is None  # another one's
    (inside.parent / "link.md").symlink_to(tmp_path)
    for other in (tmp_path / "x.md", inside.parent / "link.md", settings.home / "uploads2" / "x"):
        assert shelf.uploaded_file(settings, "a", other.as_uri()) is None
    assert shelf.uploaded_file(settings, "a", "text:abc") is None


def test_what_visitors_may_read_is_read_again_only_where_it_really_lies(home, tmp_path):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (tmp_path / "link").symlink_to(allowed)
    ui = load_config().ui.model_copy(update={"allowed_folders": (tmp_path / "link",)})
    settings = load_config().model_copy(update={"ui": ui})
    limits = (tmp_path / "link", settings.home / "uploads")
    for inside in (allowed / "x.md", tmp_path / "link" / "x.md", settings.home / "uploads/a/x.md"):
        assert shelf.bounds(settings, inside) == limits
    assert shelf.bounds(settings, tmp_path / "x.md") == ()
