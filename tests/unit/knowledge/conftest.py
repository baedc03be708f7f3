"""A small knowledge base with an embedder that costs nothing."""

import hashlib

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from milvus_server import milvus_location, milvus_server

from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.types import Chunk, ExtractedDocument

# One server for all tests beside this file.
__all__ = ["milvus_location", "milvus_server"]

pytest.importorskip("faiss")


class HashEmbeddings(Embeddings):
    """A unit vector that depends on the text alone."""

    def __init__(self, name="hash", dimension=8):
        self.name = name
        self.dimension = dimension

    def embed_query(self, text):
        digest = hashlib.sha256(text.encode()).digest()
        vector = np.frombuffer(digest[: self.dimension], dtype=np.uint8) - 127.5
        return (vector / np.linalg.norm(vector)).tolist()

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


def make_document(source, text, size=20):
    document = ExtractedDocument(
        source=source,
        title=source,
        text=text,
        sha256=hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(),
        size=len(text),
        mtime=1.5,
        media_type="text/plain",
        parser_version="1",
    )
    starts = range(0, len(text), size)
    return document, [Chunk(i, min(i + size, len(text)), text[i : i + size]) for i in starts]


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
