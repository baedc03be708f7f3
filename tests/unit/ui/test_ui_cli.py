"""`glm-rag ui`: what the server is started with, and what stops it from starting."""

import importlib.util
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import typer
from typer.testing import CliRunner

from glm_rag.errors import ConfigError, MissingDependencyError
from glm_rag_ui import cli, session

app = typer.Typer()
app.callback()(lambda: None)
cli.register(app)


@pytest.fixture
def started(monkeypatch):
    """Commands that would have been run."""
    commands = []

    def run(command, environment):
        commands.append((command, environment))
        return 0

    monkeypatch.setattr(cli, "run", run)
    monkeypatch.setattr(cli, "check_port", lambda _host, _port: None)
    return commands


def invoke(*arguments):
    return CliRunner().invoke(app, ["ui", *arguments])


def test_the_server_listens_on_loopback_without_telemetry_and_watcher(started):
    result = invoke()
    assert result.exit_code == 0
    assert "http://127.0.0.1:8501" in result.stdout
    command, environment = started[0]
    for option in (
        "--server.address=127.0.0.1",
        "--server.port=8501",
        "--server.headless=true",
        "--server.fileWatcherType=none",
        "--browser.gatherUsageStats=false",
        "--server.allowedHosts=127.0.0.1",
        "--server.maxUploadSize=200",
        # its greeting would ask a service on the internet for the machine's address
        "--logger.hideWelcomeMessage=true",
    ):
        assert option in command
    assert environment["STREAMLIT_BROWSER_GATHER_USAGE_STATS"] == "false"


def test_the_page_gets_knowledge_base_and_config(started, tmp_path):
    config = tmp_path / "my settings.yaml"
    config.write_text("model:\n  name: smollm2-135m\n")
    assert invoke("--kb", "odd -name", "--config", str(config)).exit_code == 0
    command = started[0][0]
    read = session.parse_arguments(command[command.index("--") + 1 :])
    assert read == session.Arguments("odd -name", config)


def token_of(started):
    return started[0][1].get(cli.TOKEN_VARIABLE, "")


def test_listening_elsewhere_makes_a_token_that_only_the_address_shows(started):
    result = invoke("--host", "0.0.0.0", "--port", "9000")
    assert "reachable from other computers" in result.stderr
    token = token_of(started)
    assert len(token) >= 32
    assert result.stdout.count(token) == 1
    assert f":9000/?token={token} " in result.stdout
    assert not any(token in part for part in started[0][0])
    assert not any("allowedHosts" in part for part in started[0][0])
    invoke("--host", "0.0.0.0")
    assert started[1][1][cli.TOKEN_VARIABLE] != token


def test_on_loopback_no_token_is_needed(started):
    assert "token" not in invoke().stdout
    assert not token_of(started)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_token_of_ones_own_is_wanted_everywhere(started, host):
    result = invoke("--host", host, "--token", "my-own-token")
    assert token_of(started) == "my-own-token"
    assert "?token=my-own-token" in result.stdout


def test_the_token_may_come_from_environment_or_config(started, monkeypatch, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("ui:\n  token: from-the-config\n  upload_mb: 7\n")
    invoke("--config", str(config))
    assert token_of(started) == "from-the-config"
    assert "--server.maxUploadSize=7" in started[0][0]
    monkeypatch.setenv("GLM_RAG_UI__TOKEN", "from-the-environment")
    invoke("--config", str(config))
    assert started[1][1][cli.TOKEN_VARIABLE] == "from-the-environment"


@pytest.mark.parametrize("token", ["short", "with space", "has/slash", "问问问问问问问问"])
def test_a_token_that_is_no_good_is_told_before_the_server_starts(started, token):
    result = invoke("--token", token)
    assert isinstance(result.exception, ConfigError)
    assert "8 or more letters" in str(result.exception)
    assert not started


def test_the_server_is_found_behind_the_gate():
    from streamlit.web.server.app_discovery import discover_asgi_app

    assert discover_asgi_app(cli.APP).is_asgi_app


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("box", False)],
)
def test_loopback_is_told_from_reachable_addresses(host, loopback):
    assert cli.is_loopback(host) is loopback


def test_a_wrong_setting_is_told_before_the_server_starts(started, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("modle: {}\n")
    result = invoke("--config", str(config))
    assert isinstance(result.exception, ConfigError)
    assert not started


def test_a_name_that_leaves_the_data_folder_is_told_before_the_server_starts(started):
    result = invoke("--kb", "../x")
    assert isinstance(result.exception, ConfigError)
    assert "cannot name a knowledge base" in str(result.exception)
    assert not started


def test_a_taken_port_is_one_clear_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}.*--port"):
            cli.check_port("127.0.0.1", port)


def test_an_address_of_another_machine_is_one_clear_line():
    with pytest.raises(ConfigError, match="cannot listen"):
        cli.check_port("203.0.113.7", 8501)


def test_missing_streamlit_names_the_extra(started, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    result = invoke()
    assert isinstance(result.exception, MissingDependencyError)
    assert "glm-rag[ui]" in str(result.exception)


def test_streamlit_settings_from_elsewhere_do_not_reach_the_server():
    environment = cli.server_environment({"STREAMLIT_SERVER_ADDRESS": "0.0.0.0", "HOME": "/h"})
    assert "STREAMLIT_SERVER_ADDRESS" not in environment
    assert environment["HOME"] == "/h"


def test_the_command_line_does_not_load_streamlit():
    code = "import sys, glm_rag_ui.cli; sys.exit('streamlit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


def test_interrupting_ends_the_server(monkeypatch):
    servers = []
    popen = subprocess.Popen

    def remember(*arguments, **options):
        servers.append(popen(*arguments, **options))
        return servers[-1]

    monkeypatch.setattr(subprocess, "Popen", remember)

    def interrupt():
        while not servers:
            time.sleep(0.01)
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert cli.run(SLEEP, {}) == 0
    assert servers[0].poll() is not None


def test_the_exit_code_of_the_server_is_passed_on():
    assert cli.run([sys.executable, "-c", "raise SystemExit(3)"], {}) == 3
