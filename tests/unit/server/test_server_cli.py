"""`glm-rag serve` and `glm-rag keys` as an operator types them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.errors import ConfigError
from glm_rag_server.keys import KeyStore
from glm_rag_server.server import is_loopback, listen


def run(*arguments):
    return CliRunner().invoke(app, arguments)


def test_a_key_is_made_shown_once_listed_and_revoked(home):
    made = run("keys", "create", "laptop", "--scope", "write")
    assert made.exit_code == 0
    key = made.stdout.strip()
    store = KeyStore(home / "api-keys.sqlite")
    assert store.find(key).scope == "write"
    listed = run("keys", "list")
    assert "laptop" in listed.stdout
    assert "write" in listed.stdout
    assert key.split("-", 2)[2] not in listed.stdout
    assert run("keys", "revoke", "laptop").exit_code == 0
    assert store.find(key) is None
    assert json.loads(run("keys", "list", "--json").stdout)[0]["revoked"] > 0


def test_a_scope_that_does_not_exist_is_named(home):
    wrong = run("keys", "create", "laptop", "--scope", "root")
    assert isinstance(wrong.exception, ConfigError)
    assert "read, write, admin" in str(wrong.exception)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_without_a_key_no_other_address_is_listened_on(home, host):
    refused = run("serve", "--host", host)
    assert isinstance(refused.exception, ConfigError)
    assert "glm-rag keys create" in str(refused.exception)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"STORE__BACKEND": "milvus"}, "store.uri is empty"),
        ({"STORE__BACKEND": "milvus", "STORE__URI": "foo"}, "store.uri 'foo' names no Milvus"),
        ({"STORE__BACKEND": "milvus", "STORE__URI": "http://[::1:1"}, "'http://[::1:1' names no"),
        ({"STORE__BACKEND": "milvus", "STORE__URI": "http://h:99999"}, "'http://h:99999' names no"),
        ({"STORE__BACKEND": "milvus", "STORE__URI": "ftp://h"}, "'ftp://h' names no Milvus"),
        ({"LLM__BACKEND": "openai"}, "needs llm.base_url"),
        ({"SERVER__MODELS": '["smolm2-135m"]'}, "server.models: unknown model 'smolm2-135m'; did"),
        ({"MODEL__NAME": "nope"}, "model.name: unknown model 'nope'"),
        ({"SERVER__OTLP_ENDPOINT": "nonsense"}, "server.otlp_endpoint 'nonsense'"),
        ({"SERVER__OTLP_ENDPOINT": "http://h:x"}, "server.otlp_endpoint 'http://h:x'"),
    ],
)
def test_settings_that_can_never_work_end_the_command_with_one_line(
    home, monkeypatch, settings, said
):
    def no_server(*_):
        raise AssertionError("it began to serve")

    monkeypatch.setattr("glm_rag_server.server.listen", no_server)
    for name, value in settings.items():
        monkeypatch.setenv(f"GLM_RAG_{name}", value)
    done = run("serve", "--port", "0")
    assert (done.exit_code, type(done.exception)) == (1, ConfigError)
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)


def test_what_may_come_right_while_it_runs_keeps_no_server_from_starting(home, tmp_path):
    from glm_rag.config import load_config
    from glm_rag_server.checking import absent_folders, check

    later = tmp_path / "later"
    settings = load_config(
        overrides={
            "store.backend": "milvus", "store.uri": "http://127.0.0.1:1",
            "server.models": ("chatglm2-6b-32k", str(later / "model")),
            "server.allowed_folders": (str(later), str(tmp_path)),
        }
    )  # fmt: skip
    check(settings)
    assert absent_folders(settings) == [later]


def test_a_revoked_key_is_no_key_for_another_address(home):
    store = KeyStore(home / "api-keys.sqlite")
    store.create("laptop", "read")
    store.revoke("laptop")
    assert isinstance(run("serve", "--host", "0.0.0.0").exception, ConfigError)


def test_a_port_that_is_taken_is_one_line(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = run("serve", "--port", str(port))
    assert isinstance(refused.exception, ConfigError)
    assert str(refused.exception).startswith(f"cannot listen on 127.0.0.1 port {port}")


def test_an_address_of_another_machine_is_one_line():
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.evil.example", False)],
)  # fmt: skip
def test_which_addresses_only_this_computer_reaches(host, own):
    assert is_loopback(host) == own


def test_help_loads_no_server():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom glm_rag.cli.main import app\n"
        "assert CliRunner().invoke(app, ['serve', '--help']).exit_code == 0\n"
        "assert CliRunner().invoke(app, ['keys', '--help']).exit_code == 0\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"fastapi", "uvicorn", "starlette", "prometheus_client", "opentelemetry", "torch"}
    assert not heavy & set(done.stdout.split())
