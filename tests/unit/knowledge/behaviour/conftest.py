"""What a knowledge base does, written once and run on every backend.

On Milvus the quick run takes a few tests of each kind; `make test-slow` runs them all.
"""

from contextlib import contextmanager, suppress

import pytest
from tests_of_milvus import QUICK_ON_MILVUS

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import records
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.knowledge.library import Library


def pytest_collection_modifyitems(items):
    for item in items:
        params = getattr(item, "callspec", None)
        if params is None or params.params.get("backend") != "milvus":
            continue
        if item.originalname not in QUICK_ON_MILVUS:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=["faiss", "milvus"])
def backend(request):
    return request.param


@pytest.fixture
def open_kb(backend, home, request, hash_embeddings):
    """Opens a knowledge base of the backend; the same name is the same one."""
    opened = []
    location = request.getfixturevalue("milvus_location") if backend == "milvus" else None

    def open_one(name="kb", **options):
        options.setdefault("embeddings", hash_embeddings())
        options.setdefault("create", True)
        if location is None:
            kb = KnowledgeBase.open(name, home=home, **options)
        else:
            from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase

            kb = MilvusKnowledgeBase.open(name, location=location, home=home, **options)
        opened.append(kb)
        return kb

    yield open_one
    for kb in opened:
        kb.close()


@pytest.fixture
def failing(backend):
    """A context in which every write ends as if its process were killed: `before the commit`, or
    `behind the commit`."""

    def fails(*_, **__):
        raise KnowledgeBaseError("the disk is full")

    @contextmanager
    def context(when):
        if backend == "milvus":
            from glm_rag.knowledge.milvus.writing import Writer

            target, name = Writer, "_commit" if when == "before the commit" else "sweep"
        elif when == "before the commit":
            target, name = records, "replace_failures"
        else:
            target, name = Library, "_wrote"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(target, name, fails)
            with suppress(KnowledgeBaseError):
                yield
                pytest.fail("the write did not end early")

    return context
