"""The process: a port, uvicorn, and an end that lets running answers finish."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import signal
import socket
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING

import typer
import uvicorn

from glm_rag.errors import ConfigError, GlmRagError
from glm_rag_server import logs
from glm_rag_server.app import create_app
from glm_rag_server.checking import absent_folders, check
from glm_rag_server.connection import hasty
from glm_rag_server.errors import as_api_error

if TYPE_CHECKING:
    from fastapi import FastAPI

    from glm_rag.settings import Settings
    from glm_rag_server.context import ServerContext

log = logging.getLogger("glm_rag_server")

_UVICORN = logging.getLogger("uvicorn.error")
_BACKLOG = 256
_LOOK_SECONDS = 0.05
_END_SECONDS = 2.0
_ENDING = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings, host: str, port: int, *, verbose: bool = False) -> None:
    """Serve until a signal comes.

    Raises:
        ConfigError: the settings can never work, the address needs a key and there is none, or the
            port cannot be had.
    """
    check(settings)
    app = create_app(settings)
    context: ServerContext = app.state.context
    lock(context, host)
    logs.configure(logging.DEBUG if verbose else logging.INFO)
    for folder in absent_folders(settings):
        log.warning("server.allowed_folders: there is no folder %s", folder)
    with listen(host, port) as sock:
        typer.echo(f"glm-rag serves {address(sock)} (Ctrl-C ends it)")
        threading.Thread(target=_load, args=(context,), daemon=True).start()
        # uvicorn raises the signal again when it is done; without this it would end us.
        before = {number: signal.signal(number, _ignore) for number in _ENDING}
        try:
            Server(config_of(app)).run(sockets=[sock])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def lock(context: ServerContext, host: str) -> None:
    """Let nobody in without a key where other computers reach us, whatever becomes of the file."""
    if is_loopback(host):
        return
    if all(key.revoked is not None for key in context.keys.all()):
        raise ConfigError(
            f"{host} is reachable from other computers: make a key first with "
            "glm-rag keys create NAME"
        )
    context.keys.always = True


class Server(uvicorn.Server):
    """uvicorn, whose end tells who waits, and hangs up on who is still there when it is due.

    uvicorn itself would break off the coroutines, and take that for faults of theirs.
    """

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the end."""
        try:
            super().run(sockets)
        finally:
            _UVICORN.disabled = False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin nothing new, let what runs finish; with `force_exit` at once."""
        context: ServerContext = self.config.app.state.context  # type: ignore[union-attr]
        context.stop()
        due = asyncio.create_task(self._hang_up(context.settings.server.shutdown_seconds))
        await super().shutdown(sockets)
        if self.force_exit:
            await due
            await self._tasks_end()
            # What is left is broken off with the loop, on purpose.
            _UVICORN.disabled = True
        due.cancel()

    async def _hang_up(self, seconds: float) -> None:
        """Close all connections after so long, or once somebody insists."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(_LOOK_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def _tasks_end(self) -> None:
        """Those whose client is gone end by themselves; wait for it, though not long."""
        end = time.monotonic() + _END_SECONDS
        while self.server_state.tasks and time.monotonic() < end:
            await asyncio.sleep(_LOOK_SECONDS)


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
        # Behind our own, for what does not end when its client is gone.
        timeout_graceful_shutdown=math.ceil(server.shutdown_seconds + _END_SECONDS),
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
