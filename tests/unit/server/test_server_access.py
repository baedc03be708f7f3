"""Who may do what: keys, scopes, and the pages that a keyless server answers to."""

from __future__ import annotations

import stat

import pytest
from server_fakes import LOCAL, app_with, client_of

from glm_rag.errors import ConfigError
from glm_rag_server.keys import FILE_NAME, KeyStore

QUESTION = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hello?"}]}
PROTECTED = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/smollm2-135m"),
    ("GET", "/metrics"),
    ("GET", "/nothing/here"),
]
PUBLIC = ["/healthz", "/readyz", "/docs", "/docs.js", "/docs.css", "/openapi.json"]


def bearer(key):
    return {"authorization": f"Bearer {key}"}


async def test_once_there_is_a_key_everything_but_health_and_page_needs_one(client, keys):
    keys.create("laptop", "read")
    for method, path in PROTECTED:
        reply = await client.request(method, path)
        assert reply.status_code == 401, path
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.json()["error"]["code"] == "invalid_api_key"
    for path in PUBLIC:
        assert (await client.get(path)).status_code == 200, path


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Bearer ", "Bearer x", "Basic eDp5", "Bearer grk-0123456789ab-" + "A" * 43,
        "bearer\tx", "Bearer " + "grk-" * 1000, "Bearer \xff".encode("latin-1"),
    ],
)  # fmt: skip
async def test_a_wrong_key_is_refused(client, keys, header):
    keys.create("laptop", "admin")
    reply = await client.get("/v1/models", headers={"authorization": header})
    assert reply.status_code == 401


async def test_a_key_with_one_wrong_character_is_refused(client, keys):
    key = keys.create("laptop", "read")
    for at in (5, -1):  # in its id, in its secret
        other = list(key)
        other[at] = "0" if other[at] != "0" else "1"
        assert (await client.get("/v1/models", headers=bearer("".join(other)))).status_code == 401
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200


async def test_a_scope_allows_what_is_below_it_and_nothing_above(home):
    from fastapi import Depends

    from glm_rag_server.auth import require

    app = app_with(home)
    keys = app.state.context.keys
    for scope in ("read", "write", "admin"):
        app.get(f"/need/{scope}", dependencies=[Depends(require(scope))])(lambda: "yes")
    made = {scope: keys.create(scope, scope) for scope in ("read", "write", "admin")}
    allowed = set()
    async with client_of(app) as client:
        for has, key in made.items():
            for need in made:
                reply = await client.get(f"/need/{need}", headers=bearer(key))
                assert reply.status_code in {200, 403}
                if reply.status_code == 200:
                    allowed.add((has, need))
    assert allowed == {
        ("read", "read"),
        ("write", "read"), ("write", "write"),
        ("admin", "read"), ("admin", "write"), ("admin", "admin"),
    }  # fmt: skip


async def test_a_revoked_key_is_refused_at_once_and_the_last_one_locks_the_server(client, keys):
    key = keys.create("laptop", "read")
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
    keys.revoke("laptop")
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 401
    assert (await client.get("/v1/models")).status_code == 401


async def test_a_server_that_others_reach_stays_locked_when_its_key_file_is_lost(home):
    from glm_rag_server.server import lock

    app = app_with(home)
    keys = app.state.context.keys
    key = keys.create("laptop", "admin")
    lock(app.state.context, "0.0.0.0")
    keys.path.unlink()
    async with client_of(app, host="localhost") as client:
        for headers in ({}, bearer(key)):
            for method, path in PROTECTED:
                assert (await client.request(method, path, headers=headers)).status_code == 401
        assert (await client.get("/healthz")).status_code == 200
    key = keys.create("laptop", "read")
    async with client_of(app) as client:
        assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200


async def test_nobody_without_a_key_gets_a_body_read(home):
    app = app_with(home)
    app.state.context.keys.create("laptop", "read")
    read = []

    async def body():
        read.append(1)
        yield b"{}"

    async with client_of(app) as client:
        reply = await client.post("/v1/chat/completions", content=body())
    assert (reply.status_code, read) == (401, [])


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""]
)
async def test_a_keyless_server_answers_only_to_names_of_this_computer(client, host):
    reply = await client.get("/v1/models", headers={"host": host})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "foreign_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000"])
async def test_a_keyless_server_answers_to_every_name_of_this_computer(client, host):
    assert (await client.get("/v1/models", headers={"host": host})).status_code == 200


async def test_a_page_from_elsewhere_cannot_use_a_keyless_server(home):
    async with client_of(app_with(home)) as client:
        for origin in ("http://evil.example", "null", "http://127.0.0.1:9"):
            reply = await client.post(
                "/v1/chat/completions", json=QUESTION, headers={"origin": origin}
            )
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "foreign_origin")
        own = await client.post("/v1/chat/completions", json=QUESTION, headers={"origin": LOCAL})
        assert own.status_code == 200


async def test_a_page_that_the_settings_name_may_call(home):
    page = "https://chat.example"
    app = app_with(home, allowed_origins=(page,))
    app.state.context.keys.create("laptop", "read")
    asks = {"origin": page, "access-control-request-method": "POST"}
    async with client_of(app) as client:
        reply = await client.options("/v1/models", headers=asks)
        assert reply.headers["access-control-allow-origin"] == page
        # As OpenAI's client in a browser does.
        asks["access-control-request-headers"] = "authorization,x-stainless-os,x-stainless-lang"
        reply = await client.options("/v1/chat/completions", headers=asks)
        assert reply.status_code == 200
        assert "x-stainless-os" in reply.headers["access-control-allow-headers"]
        other = await client.options("/v1/models", headers={**asks, "origin": "https://no.example"})
        assert "access-control-allow-origin" not in other.headers


def test_a_key_is_stored_as_a_hash_in_a_file_of_its_owner(keys):
    key = keys.create("laptop", "read")
    secret = key.split("-", 2)[2]
    files = list(keys.path.parent.glob("api-keys.sqlite*"))
    assert all(secret.encode() not in file.read_bytes() for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_keys_are_long_and_never_the_same(keys):
    made = {keys.create(f"key {number}", "read") for number in range(20)}
    assert len(made) == 20
    assert all(len(key.split("-", 2)[2]) == 43 for key in made)  # 256 bits in base64


def test_the_last_use_is_noted(keys):
    key = keys.create("laptop", "read")
    assert keys.all()[0].used is None
    assert keys.find(key).name == "laptop"
    assert keys.all()[0].used is not None


def test_a_name_is_taken_until_its_key_is_revoked(keys):
    keys.create("laptop", "read")
    with pytest.raises(ConfigError, match="already"):
        keys.create("laptop", "admin")
    keys.revoke(keys.all()[0].id)
    keys.create("laptop", "write")
    assert [key.scope for key in keys.all() if key.revoked is None] == ["write"]
    with pytest.raises(ConfigError, match="there are laptop"):
        keys.revoke("desktop")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "-x", "x" * 65, "a/b"])
def test_a_name_that_would_confuse_lists_is_refused(keys, name):
    with pytest.raises(ConfigError, match="cannot name a key"):
        keys.create(name, "read")


def test_a_look_at_keys_makes_no_file(home):
    store = KeyStore(home / "keys.sqlite")
    assert store.all() == []
    assert not store.required
    assert store.find("grk-0123456789ab-" + "A" * 43) is None
    assert not store.path.exists()


async def test_a_damaged_key_file_locks_the_server_and_clients_learn_no_folder(home, caplog):
    caplog.set_level("INFO", "glm_rag_server")
    (home / FILE_NAME).write_text("no database")
    async with client_of(app_with(home)) as client:
        refused = await client.get("/v1/models")
        assert (await client.get("/healthz")).status_code == 200
    assert refused.status_code == 500
    assert "(data folder)/api-keys.sqlite is damaged" in refused.json()["error"]["message"]
    assert str(home) not in refused.text
    noted = [getattr(record, "fields", {}).get("places") for record in caplog.records]
    assert [str(home)] in noted


def test_a_damaged_key_file_locks_and_says_so(keys):
    from glm_rag.errors import GlmRagError

    keys.path.write_bytes(b"no database" * 100)
    with pytest.raises(GlmRagError, match="damaged"):
        _ = keys.required
