"""A small knowledge base with an embedder that costs nothing."""

import dataclasses
from contextlib import closing

import pytest
from damaged import TEXT
from milvus_server import milvus_location, milvus_server
from small_documents import HashEmbeddings, make_document

from glm_rag.knowledge.base import KnowledgeBase

# One server for all tests beside this file.
__all__ = ["milvus_location", "milvus_server"]

pytest.importorskip("faiss")


@pytest.fixture
def make():
    return make_document


@pytest.fixture
def hash_embeddings():
    return HashEmbeddings


@pytest.fixture
def open_kb(home):
    opened = []

    def open_one(name="kb", **options):
        options.setdefault("embeddings", HashEmbeddings())
        opened.append(KnowledgeBase.open(name, home=home, create=True, **options))
        return opened[-1]

    yield open_one
    for kb in opened:
        kb.close()


@pytest.fixture
def kb(open_kb):
    return open_kb()


@pytest.fixture
def filled(kb, make):
    """A chunk with everything, an archive's member, a copy, and texts of no file."""
    document, chunks = make("a.txt", TEXT)
    chunks[1] = dataclasses.replace(chunks[1], headings=("Rules",), section=(0, 30))
    kb.put_document(document, chunks)
    kb.put_document(*make("b.txt", "another document"))
    kb.put_document(dataclasses.replace(make("z", "")[0], sha256="z"), [])
    member, chunks = make("z#m", "inside an archive")
    kb.put_document(dataclasses.replace(member, container="z"), chunks)
    kb.add_copy("c.txt", of="b.txt", size=1, mtime=2.0)
    kb.add_texts(["a text of no file", "!?"], [{"source": "elsewhere"}, {}])
    kb._index.rebuild()
    return kb


@pytest.fixture
def milvus_kb(milvus_location, home, hash_embeddings):
    """Opens knowledge bases in Milvus, where the tests run with it."""
    from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase

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
def store(tmp_path):
    """A writer of vectors that knows what is true of them."""
    from vector_store import VectorStore

    with closing(VectorStore(tmp_path / "kb")) as store:
        yield store


@pytest.fixture
def reader(store):
    """Searches what `store` writes, as another process would."""
    with closing(store.reader()) as reader:
        yield reader


@pytest.fixture
def swept_at_once(monkeypatch):
    """A file of vectors that was replaced does not stay a minute."""
    from glm_rag.knowledge.vectors import snapshots

    monkeypatch.setattr(snapshots, "_REPLACED_SECONDS", -1.0)
