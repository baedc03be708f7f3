"""LangChain's standard suites for chat models, on the real SmolLM2 without any network."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from glm_rag.chat_models import ChatGLM2

pytestmark = pytest.mark.usefixtures("no_network")


class TestChatGLM2Unit(ChatModelUnitTests):
    has_tool_calling = False
    has_structured_output = False

    @property
    def chat_model_class(self) -> type[ChatGLM2]:
        return ChatGLM2

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "smollm2-135m"}


class TestChatGLM2Integration(ChatModelIntegrationTests):
    has_tool_calling = False
    has_structured_output = False

    @pytest.fixture(autouse=True)
    def installed(self, smollm2, home):
        """The pulled model in this test's own data folder, under two names."""
        models = home / "models"
        models.mkdir()
        (models / "smollm2-135m").symlink_to(smollm2)
        (models / "second-name").symlink_to(smollm2)

    @property
    def chat_model_class(self) -> type[ChatGLM2]:
        return ChatGLM2

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "smollm2-135m", "max_tokens": 8}

    @property
    def model_override_value(self) -> str:
        return "second-name"
