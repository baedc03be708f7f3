"""`glm-rag ui`: run the page in a Streamlit server of its own."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from glm_rag.config import load_config
from glm_rag.errors import ConfigError, MissingDependencyError
from glm_rag.knowledge.naming import folder_of
from glm_rag.settings import expand_user

TOKEN_VARIABLE = "GLM_RAG_UI__TOKEN"
# Requests to end that would leave the child alone; Ctrl-C is an exception.
_ENDING = (signal.SIGTERM, signal.SIGHUP)

APP = Path(__file__).with_name("server.py")

_FONT = (
    "'Source Sans', 'Source Sans Pro', 'PingFang SC', 'Hiragino Sans GB', 'Microsoft YaHei',"
    " 'Noto Sans CJK SC', 'Source Han Sans SC', 'WenQuanYi Micro Hei', sans-serif"
)

# Streamlit follows the browser's light or dark preference when both are described.
_OPTIONS: dict[str, str] = {
    "logger.level": "warning",
    # The greeting asks a service on the internet for the machine's address.
    "logger.hideWelcomeMessage": "true",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    # Otherwise a click ends a running script as the stop button does, and with it the answer.
    "runner.fastReruns": "false",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "theme.font": _FONT,
    "theme.baseFontSize": "16",
    "theme.baseRadius": "0.6rem",
    "theme.showWidgetBorder": "true",
    "theme.light.primaryColor": "#0b7a68",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f3f6f5",
    "theme.light.textColor": "#1b2523",
    "theme.light.borderColor": "#dde5e2",
    "theme.light.sidebar.backgroundColor": "#f7f9f8",
    "theme.light.sidebar.secondaryBackgroundColor": "#ffffff",
    "theme.dark.primaryColor": "#3fb8a2",
    "theme.dark.backgroundColor": "#121716",
    "theme.dark.secondaryBackgroundColor": "#1c2422",
    "theme.dark.textColor": "#e6edeb",
    "theme.dark.borderColor": "#2c3734",
    "theme.dark.sidebar.backgroundColor": "#171d1b",
    "theme.dark.sidebar.secondaryBackgroundColor": "#212a27",
}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(ui)


def ui(
    kb: Annotated[str | None, typer.Option("--kb", help="Knowledge base to open first.")] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port.")] = 8501,
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on; others than this need a token."),
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            help="What browsers must show first. Safer in GLM_RAG_UI__TOKEN: others on this "
            "computer can see a command's options. Default: made anew where one is needed.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file with settings (see configs/).")
    ] = None,
) -> None:
    """Chat with your documents in the browser. Ctrl-C ends it.

    Examples:

      glm-rag ui --kb handbook

      glm-rag ui --host 0.0.0.0
    """
    # A wrong setting or name is told here, not on the page.
    settings = load_config(config, overrides={"ui.token": token})
    if kb is not None:
        folder_of(kb, settings.home)
    if importlib.util.find_spec("streamlit") is None:
        raise MissingDependencyError.for_extra("streamlit", "ui")
    check_port(host, port)
    secret = settings.ui.token or ("" if is_loopback(host) else secrets.token_urlsafe(24))
    typer.echo(f"glm-rag is at {address(host, port, secret)} (Ctrl-C ends it)")
    if not is_loopback(host):
        typer.echo(
            f"Warning: {host} is reachable from other computers. Whoever has the token can read "
            "and change the knowledge bases, and nothing is encrypted on the way: use it in a "
            "network you trust, or behind a proxy that speaks HTTPS.",
            err=True,
        )
    command = server_command(host, port, kb, config, upload_mb=settings.ui.upload_mb)
    raise typer.Exit(run(command, server_environment(os.environ, secret)))


def address(host: str, port: int, token: str) -> str:
    """What to open in the browser."""
    shown = socket.gethostname() if host in {"0.0.0.0", "::"} else host
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{port}" + (f"/?token={token}" if token else "")


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_port(host: str, port: int) -> None:
    """Make sure that the port can be listened on.

    Raises:
        ConfigError: the port is taken or not allowed, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the server does: a port that was just given up may be taken again.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            detail = error.strerror or str(error)
            raise ConfigError(
                f"cannot listen on {host} port {port} ({detail}): choose another with --port"
            ) from error


def server_command(
    host: str, port: int, kb: str | None, config: Path | None, *, upload_mb: int = 200
) -> list[str]:
    """The command line of the Streamlit server; the page's own arguments stand behind `--`."""
    options = {**_OPTIONS, "server.address": host, "server.port": str(port)}
    options["server.maxUploadSize"] = str(upload_mb)
    command = [sys.executable, "-m", "streamlit", "run", str(APP)]
    command += [f"--{name}={value}" for name, value in options.items()]
    if is_loopback(host):
        # A page elsewhere whose name was made to point here (DNS rebinding) is turned away.
        command += [f"--server.allowedHosts={name}" for name in ("127.0.0.1", "localhost", "[::1]")]
    command.append("--")
    if kb is not None:
        command += ["--kb", kb]
    if config is not None:
        command += ["--config", str(expand_user(config).resolve())]
    return command


def server_environment(environ: Mapping[str, str], token: str = "") -> dict[str, str]:
    """The server's environment: no telemetry, and no Streamlit settings from elsewhere.

    The token goes this way, since everyone on a computer can see the options of its commands.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith("STREAMLIT_")}
    # Idle worker threads that spin take the cores from the server and from each other.
    kept.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if token:
        kept[TOKEN_VARIABLE] = token
    return {**kept, "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false"}


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the server until it ends or we are told to; returns the exit code.

    In a group of its own the child does not get the terminal's Ctrl-C, which it would report as
    an error; whatever ends us is passed on to it as the request to terminate.
    """
    with subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.DEVNULL, process_group=0
    ) as server:

        def stop(_signal: int, _frame: FrameType | None) -> None:
            server.terminate()

        previous = {number: signal.signal(number, stop) for number in _ENDING}
        try:
            code = server.wait()
        except KeyboardInterrupt:
            server.terminate()
            server.wait()
            code = 0
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
    return max(code, 0)
