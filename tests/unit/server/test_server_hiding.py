"""Clients learn no internal addresses and no folders; the operator's log has them."""

from __future__ import annotations

import json
import logging

import pytest
from server_fakes import client_of

from glm_rag.config import load_config
from glm_rag_server.app import create_app
from glm_rag_server.hiding import Hiding
from glm_rag_server.logs import JsonLines
from openai_server import openai_server

CHAT = "/v1/chat/completions"
SETTINGS = {
    "llm.backend": "openai",
    "llm.base_url": "http://models-7.intern:8001/v1/",
    "llm.api_key": "sk-very-secret",
    "llm.tokenizer": "/srv/tokenizer",
    "store.backend": "milvus",
    "store.uri": "http://10.1.2.3:19530",
    "store.token": "root:Milvus",
    "ingestion.address": "ray-head:6379",
    "server.allowed_folders": ("/srv/documents",),
    "server.allowed_origins": ("https://chat.example",),
}


@pytest.fixture
def hide(home):
    return Hiding(load_config(overrides=SETTINGS))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no model answers at http://models-7.intern:8001/v1: start it",
         "no model answers at (llm.base_url): start it"),
        ("models-7.intern:8001 refused", "(llm.base_url) refused"),
        ("cannot resolve models-7.intern.", "cannot resolve (llm.base_url)."),
        ("refuses the key (Incorrect key sk-very-secret)", "refuses the key (Incorrect key "
         "(llm.api_key))"),
        ("no Milvus answers at http://10.1.2.3:19530: start it",
         "no Milvus answers at (store.uri): start it"),
        ("http://10.1.2.3:19530/default: failed", "(store.uri)/default: failed"),
        ("Milvus refuses root:Milvus", "Milvus refuses (store.token)"),
        ("cannot read /srv/tokenizer/tokenizer.json", "cannot read (llm.tokenizer)/tokenizer.json"),
        ("ray-head:6379 is gone", "(ingestion.address) is gone"),
        # What no setting names, in somebody else's words.
        ("upstream http://10.9.9.9:80/x failed", "upstream (address) failed"),
        ("connect 192.168.0.7:443", "connect (address)"),
        ("as http://127.0.0.1:8000/v1", "as http://127.0.0.1:8000/v1"),
        ("no file /usr/lib/python3/x.py.", "no file (folder)"),
        # What is no place.
        ("pip install milvus-lite, or GET /kb of https://chat.example",
         "pip install milvus-lite, or GET /kb of (address)"),
        ("file:///srv2/documents/a.md is exchanged", "file:///srv2/documents/a.md is exchanged"),
        ("`en.page`: 3/4 or and/or, half/half/half", "`en.page`: 3/4 or and/or, half/half/half"),
    ],
)  # fmt: skip
def test_places_and_secrets_become_the_names_of_their_settings(hide, message, shown):
    assert hide(message) == shown


ORDINARY = (
    "no document: there is none of the data, and / or none here; see http://127.0.0.1:8000/v1"
)


@pytest.mark.parametrize(
    "settings",
    [
        {"home": "/"},
        {"home": "data"},
        {"llm.api_key": "none"},
        {"generation.stop": ("/", "see")},
        {"retrieval.filter": {"title": "/"}},
        {"llm.base_url": "http://[::1:8000"},
    ],
)
def test_settings_that_are_ordinary_text_change_no_ordinary_message(home, settings):
    assert Hiding(load_config(overrides=settings))(ORDINARY) == ORDINARY


def test_a_folder_beside_the_server_is_hidden_where_it_is_one(home):
    hide = Hiding(load_config(overrides={"home": "data"}))
    assert hide("cannot read data/kb/a") == "cannot read (data folder)/kb/a"


def test_a_document_in_the_data_folder_keeps_the_name_that_clients_ask_for(home):
    hide = Hiding(load_config(overrides={"home": "/srv"}))
    message = "no document file:///srv/uploads/a.md"
    assert hide(message) == message
    assert hide("/srv is full") == "(data folder) is full"


def test_the_log_is_told_the_places_and_no_secret(hide, home):
    message = f"{home}/kb/a: http://models-7.intern:8001/v1 says sk-very-secret at /opt/x/y"
    places = hide.places_in(message)
    assert places == [str(home), "http://models-7.intern:8001/v1", "/opt/x/y"]
    assert hide(message) == "(data folder)/kb/a: (llm.base_url) says (llm.api_key) at (folder)"


@pytest.fixture
def lines(caplog):
    """The log's lines, as an operator reads them."""
    caplog.set_level(logging.INFO, "glm_rag_server")
    return lambda: [json.loads(JsonLines().format(record)) for record in caplog.records]


async def everything(client, url):
    """What clients get to read of a server whose model does not answer as it should."""
    body = {"model": "served", "messages": [{"role": "user", "content": "Hi"}]}
    told = [await client.post(CHAT, json=body)]
    told.append(await client.post(CHAT, json={**body, "stream": True}))
    told.append(await client.get("/readyz"))
    assert told[0].status_code >= 400
    return "".join(reply.text + str(reply.headers) for reply in told)


async def test_an_address_behind_the_server_stays_there(home, lines):
    with openai_server() as other:
        overrides = {"llm.backend": "openai", "llm.base_url": other.url, "llm.model": "served"}
        settings = load_config(overrides={**overrides, "llm.max_retries": 0})
        port = other.url.rpartition(":")[2].partition("/")[0]
        async with client_of(create_app(settings)) as client:
            other.status, other.error = 500, {"message": f"worker {other.url} of /srv/m/7 died"}
            said = await everything(client, other.url)
            assert "(llm.base_url)" in said
            other.model = "another"
            said += await everything(client, other.url)
    async with client_of(create_app(settings)) as client:  # nobody there any more
        said += await everything(client, other.url)
    assert port not in said
    assert "/srv" not in said
    logged = lines()
    assert other.url in [place for line in logged for place in line.get("places", ())]
    assert any(other.url in line["message"] for line in logged if line["level"] == "warning")


def test_where_milvus_is_stays_with_the_operator(home, monkeypatch, lines):
    pytest.importorskip("pymilvus")
    from starlette.testclient import TestClient

    monkeypatch.setattr("glm_rag.knowledge.milvus.client._CONNECT_SECONDS", 0.3)
    uri = "http://127.0.0.1:1"
    settings = load_config(overrides={"store.backend": "milvus", "store.uri": uri})
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        asked = {"model": "kb:notes", "messages": [{"role": "user", "content": "Hi?"}]}
        replies = [client.get(path) for path in ("/kb", "/kb/notes", "/v1/models/kb:notes")]
        replies.append(client.post(CHAT, json=asked))
        for reply in replies:
            assert reply.status_code == 503, reply.text
            assert reply.json()["error"]["code"] == "store_unavailable"
            assert int(reply.headers["retry-after"]) >= 1
        replies.append(client.get("/readyz"))
        for reply in replies:
            assert "(store.uri)" in reply.text
            assert uri not in reply.text
        # Who only wants the model need not know.
        listed = [one["kind"] for one in client.get("/v1/models").json()["data"]]
        assert listed == ["chat", "embedding"]
        assert client.get("/v1/models/smollm2-135m").status_code == 200
    assert [uri] in [line.get("places") for line in lines()]
