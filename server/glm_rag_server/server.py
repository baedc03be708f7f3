"""The process: a port, uvicorn, and an end that lets running answers finish."""

from __future__ import annotations

import ipaddress
import logging
import math
import signal
import socket
import threading
from types import FrameType
from typing import TYPE_CHECKING

import typer
import uvicorn

from glm_rag.errors import ConfigError, GlmRagError
from glm_rag_server import logs
from glm_rag_server.app import create_app
from glm_rag_server.connection import hasty
from glm_rag_server.errors import as_api_error

if TYPE_CHECKING:
    from fastapi import FastAPI

    from glm_rag.settings import Settings
    from glm_rag_server.context import ServerContext

log = logging.getLogger("glm_rag_server")

_BACKLOG = 256
_ENDING = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings, host: str, port: int, *, verbose: bool = False) -> None:
    """Serve until a signal comes.

    Raises:
        ConfigError: the address needs a key and there is none, or the port cannot be had.
    """
    app = create_app(settings)
    context: ServerContext = app.state.context
    is_open = not any(key.revoked is None for key in context.keys.all())
    if is_open and not is_loopback(host):
        raise ConfigError(
            f"{host} is reachable from other computers: make a key first with "
            "glm-rag keys create NAME"
        )
    logs.configure(logging.DEBUG if verbose else logging.INFO)
    with listen(host, port) as sock:
        typer.echo(f"glm-rag serves {address(sock)} (Ctrl-C ends it)")
        threading.Thread(target=_load, args=(context,), daemon=True).start()
        # uvicorn raises the signal again when it is done; without this it would end us.
        before = {number: signal.signal(number, _ignore) for number in _ENDING}
        try:
            _Server(config_of(app)).run(sockets=[sock])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Server(uvicorn.Server):
    """uvicorn, which also tells who waits when the end begins."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin nothing new, let what runs finish."""
        app: FastAPI = self.config.app  # type: ignore[assignment]
        app.state.context.stop()
        await super().shutdown(sockets)


def config_of(app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves `app`."""
    server = app.state.context.settings.server
    return uvicorn.Config(
        app,
        http=hasty(server.receive_seconds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=math.ceil(server.shutdown_seconds),
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the port is taken or not allowed, or the address is not this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        detail = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on {host} port {port} ({detail}): choose another --host or --port"
        ) from error
    return sock


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address(sock: socket.socket) -> str:
    """Where clients find the server."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _load(context: ServerContext) -> None:
    """Questions need not wait for it, and `/readyz` says what is wrong."""
    try:
        context.models.load()
    except GlmRagError as error:
        reason = as_api_error(error).message
        log.warning("the model cannot be loaded: %s", reason)


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    pass
