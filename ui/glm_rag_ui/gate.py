"""What stands before the page in the server: the token, the profile of a browser, what it may load.

It sees every request before Streamlit does, uploads and the page's live connection included. So a
browser without the token reaches nothing but the form that asks for it, and cookies can be such
that no script reads them. Both cookies are `SameSite=Lax`: a strict one would stay away when the
page is opened by a link from elsewhere, and the visitor would get a new profile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from glm_rag_ui import doorway
from glm_rag_ui.passes import (
    PROFILE_COOKIE,
    PROFILE_PATH,
    Doorkeeper,
    is_profile,
    new_profile,
    tickets,
)

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_PATH = "/glm-rag/token"
HEALTH_PATH = "/_stcore/health"
_PARTS = ("/_stcore/", "/media/", "/static/", "/component/", "/app/")
COOKIE_SECONDS = 400 * 24 * 3600  # browsers keep none longer

# The page loads nothing from elsewhere, and this makes the browser refuse to. Streamlit compiles
# parts of itself in the browser, hence the two `unsafe` words.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-src 'self' blob: data:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)


class Gate:
    """ASGI middleware.

    Args:
        token: what a browser must show first; empty: nothing.
        port: tells apart the passes of several servers on one machine, whose cookies are shared.
        secret: what passes are made with; default: another one at each start.
    """

    def __init__(
        self, app: ASGIApp, *, token: str = "", port: int = 0, secret: bytes | None = None
    ) -> None:
        self.app = app
        self.door = Doorkeeper(token) if secret is None else Doorkeeper(token, secret)
        self.pass_cookie = f"glm_rag_pass_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] not in {"http", "websocket"} or scope["path"] == HEALTH_PATH:
            await self.app(scope, receive, send)
            return
        # A connection's head has cookies and headers as a request's does.
        request = Request({**scope, "type": "http", "method": scope.get("method", "GET")}, receive)
        known = self.door.knows(request.cookies.get(self.pass_cookie))
        if scope["type"] == "websocket":
            allowed = known and _is_own(request)
            await (self.app(scope, receive, send) if allowed else _refuse(send))
            return
        if request.method not in {"GET", "HEAD", "OPTIONS"} and not _is_own(request):
            await PlainTextResponse("foreign origin", 403)(scope, receive, send)
            return
        answer = await self._answer(request, known=known)
        if answer is not None:
            await answer(scope, receive, send)
        elif _is_page(request):
            await Frame(self.app, request).serve(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, request: Request, *, known: bool) -> Response | None:
        """What the gate says itself; None where the page is to answer."""
        path = request.url.path
        if self.door.token and path == TOKEN_PATH and request.method == "POST":
            return await self._typed(request)
        if self.door.token and "token" in request.query_params and _is_page(request):
            return await self._linked(request, known=known)
        if not known:
            return _form(request) if _is_page(request) else PlainTextResponse("token needed", 401)
        if path.startswith(PROFILE_PATH):
            return _other_profile(request)
        return None

    async def _typed(self, request: Request) -> Response:
        """A token from the form."""
        form = doorway.read_form(await _body(request, limit=8192))
        target = doorway.safe_target(form.get("next", "/"))
        return await self._judge(request, form.get("token", ""), target)

    async def _linked(self, request: Request, *, known: bool) -> Response:
        """A token in the address: it is taken out, so that it is not kept in the history."""
        rest = [(k, v) for k, v in request.query_params.multi_items() if k != "token"]
        target = doorway.safe_target(request.url.path + (f"?{urlencode(rest)}" if rest else ""))
        if known:
            return RedirectResponse(target, 303)
        return await self._judge(request, request.query_params["token"], target)

    async def _judge(self, request: Request, token: str, target: str) -> Response:
        address = request.client.host if request.client else ""
        if not await self.door.is_right(token.strip(), address):
            return _form(request, wrong=True, target=target)
        answer = RedirectResponse(target, 303)
        _set_cookie(answer.headers, request, self.pass_cookie, self.door.pass_())
        return answer


class Frame:
    """The HTML around the page: our name and theme, the profile's cookie, what may be loaded."""

    def __init__(self, app: ASGIApp, request: Request) -> None:
        self.app = app
        self.request = request
        self.start: Message | None = None
        self.body = b""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the page answer as plain bytes, never "not changed", and add to its answer."""
        unwanted = {b"accept-encoding", b"if-none-match", b"if-modified-since"}
        headers = [item for item in scope["headers"] if item[0].lower() not in unwanted]

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.start = message
                return
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                await self._send(send)

        await self.app({**scope, "headers": headers}, receive, collect)

    async def _send(self, send: Send) -> None:
        if self.start is None:
            return
        headers = MutableHeaders(raw=list(self.start["headers"]))
        if headers.get("content-type", "").startswith("text/html"):
            self.body = doorway.framed(self.body)
            named = self.request.cookies.get(PROFILE_COOKIE)
            kept = named if is_profile(named) else new_profile()
            _set_cookie(headers, self.request, PROFILE_COOKIE, kept)
            _protect(headers)
            if "etag" in headers:
                del headers["etag"]
        headers["content-length"] = str(len(self.body))
        await send({**self.start, "headers": headers.raw})
        await send({"type": "http.response.body", "body": self.body})


def _is_page(request: Request) -> bool:
    """Whether a browser wants to show the answer as a page, not to load a part or a file of one."""
    if request.method != "GET" or request.url.path.startswith(_PARTS):
        return False
    return "text/html" in request.headers.get("accept", "")


def _is_own(request: Request) -> bool:
    """Whether a request comes from a page of this very server, or from no page at all.

    Streamlit would let in pages of other servers on this computer, and asks a service on the
    internet for this machine's address before it turns one away.
    """
    origin = request.headers.get("origin")
    # Compared as text: what is no address has no host either.
    return origin is None or origin.partition("://")[2] == request.headers.get("host")


def _other_profile(request: Request) -> Response:
    name = request.url.path.removeprefix(PROFILE_PATH)
    profile = tickets.redeem(name, request.cookies.get(PROFILE_COOKIE))
    answer = RedirectResponse("/settings", 303)
    if profile is not None:
        _set_cookie(answer.headers, request, PROFILE_COOKIE, profile)
    return answer


def _form(request: Request, *, wrong: bool = False, target: str | None = None) -> Response:
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    page = doorway.token_form(
        request.query_params.get("lang"),
        request.headers.get("accept-language"),
        action=TOKEN_PATH,
        target=doorway.safe_target(asked if target is None else target),
        wrong=wrong,
    )
    answer = HTMLResponse(page, 403 if wrong else 401)
    _protect(answer.headers)
    return answer


def _protect(headers: MutableHeaders) -> None:
    headers["content-security-policy"] = POLICY
    headers["x-content-type-options"] = "nosniff"
    headers["referrer-policy"] = "same-origin"
    headers["cache-control"] = "no-store"


def _set_cookie(headers: MutableHeaders, request: Request, name: str, value: str) -> None:
    secure = "; Secure" if request.url.scheme == "https" else ""
    headers.append(
        "set-cookie",
        f"{name}={value}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax{secure}",
    )


async def _refuse(send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})


async def _body(request: Request, limit: int) -> bytes:
    """The first `limit` bytes of a request's body; the rest is not read."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > limit:
            break
    return body[:limit]
