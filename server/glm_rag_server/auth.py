"""Who may do what: the key of a request, and the pages a keyless server answers to.

The gate stands before everything else, so that nobody without a key sends a body that is read.
A server without keys answers only to names of this computer and only to its own pages: otherwise
a page from elsewhere, opened here, could read the documents (DNS rebinding, forms).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import Security
from fastapi.security import HTTPBearer
from starlette.requests import Request

from glm_rag.errors import GlmRagError
from glm_rag_server.errors import ApiError
from glm_rag_server.keys import Key, KeyStore, Scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as AsgiScope

# Whether the server lives, and what it can do, are no secrets.
PUBLIC = frozenset({"/healthz", "/readyz", "/docs", "/docs.js", "/docs.css", "/openapi.json"})
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

# For the OpenAPI page; the gate has read the header long before.
_BEARER = HTTPBearer(auto_error=False, description="a key of `glm-rag keys create`")
ANYBODY = Key(id="", name="", scope="admin", created=0.0)


class Gate:
    """ASGI middleware that finds out who asks; `request.state.key` says so then.

    Args:
        keys: a server without any lets in whoever reaches it on this computer.
        origins: web pages that may call it.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyStore, origins: Sequence[str] = ()) -> None:
        self.app = app
        self.keys = keys
        self.origins = frozenset(origins)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            scope.setdefault("state", {})["key"] = await self._who(request)
        except ApiError as error:
            request.state.error = error
            await error.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _who(self, request: Request) -> Key:
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        shown = key.strip() if kind.lower() == "bearer" else ""
        try:
            required, found = await asyncio.to_thread(self._look_up, shown)
        except GlmRagError:  # the file of keys is damaged: locked, and still alive
            if request.url.path in PUBLIC:
                return ANYBODY
            raise
        if not required:
            self._check_pages(request)
            return ANYBODY
        if request.url.path in PUBLIC:
            return ANYBODY
        if not shown:
            raise _unauthorized("this server needs a key: send it as `Authorization: Bearer KEY`")
        if found is None:
            raise _unauthorized("this key is unknown or was revoked: ask for another")
        return found

    def _look_up(self, shown: str) -> tuple[bool, Key | None]:
        """Whether a key is needed, and whose this one is."""
        required = self.keys.required
        return required, self.keys.find(shown) if required and shown else None

    def _check_pages(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if _name_of(host) not in _LOCAL_NAMES:
            raise ApiError(
                403,
                "a server without keys answers only to the names of this computer: make a key "
                "with glm-rag keys create",
                code="foreign_host",
            )
        origin = request.headers.get("origin")
        own = origin is None or origin.partition("://")[2] == host
        if not own and origin not in self.origins:
            message = "this page may not call the server: see server.allowed_origins"
            raise ApiError(403, message, code="foreign_origin")


def require(scope: Scope) -> Callable[..., Awaitable[Key]]:
    """A dependency: the key of the request, if it allows `scope`; 403 otherwise."""

    async def check(request: Request, _shown: object = Security(_BEARER)) -> Key:
        key: Key = request.state.key
        if not key.allows(scope):
            message = f"the key {key.name!r} may only {key.scope}: this needs {scope}"
            raise ApiError(403, message, code="insufficient_scope")
        return key

    return check


def _unauthorized(message: str) -> ApiError:
    headers = {"WWW-Authenticate": "Bearer"}
    return ApiError(401, message, code="invalid_api_key", headers=headers)


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
