"""LangChain's own suite for vector stores, with sockets blocked."""

import pytest
from langchain_tests.integration_tests.vectorstores import VectorStoreIntegrationTests

from glm_rag.knowledge.base import KnowledgeBase

pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("no_network")


class TestKnowledgeBaseStandard(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, home):
        with KnowledgeBase.open(
            "standard", home=home, embeddings=self.get_embeddings(), create=True
        ) as kb:
            yield kb
