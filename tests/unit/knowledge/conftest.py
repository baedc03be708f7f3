"""A small knowledge base with an embedder that costs nothing."""

import pytest
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
