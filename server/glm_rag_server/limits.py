"""What a request may weigh and how long it may take to arrive.

JSON bodies are received here in full before anything else runs; uploads are counted as they are
read by their route. So no route has to think of either.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.requests import Request

from glm_rag_server.errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from glm_rag.settings import ServerSettings

# Of a form, besides the file in it.
_FORM_BYTES = 64 * 1024


class Limits:
    """ASGI middleware: 413 for what is too large, 408 for what is too slow.

    Bodies of JSON routes arrive whole; an upload (a body that is a form or a file, sent to `/kb`)
    is passed on piece by piece, and `receive` raises `ApiError` where it breaks a limit.
    """

    def __init__(self, app: ASGIApp, *, settings: ServerSettings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        upload = is_upload(request)
        limit = Meter(
            receive,
            max_bytes=self._upload_bytes if upload else self.settings.request_kb * 1000,
            seconds=self.settings.upload_seconds if upload else self.settings.receive_seconds,
        )
        try:
            limit.check_announced(request.headers.get("content-length"))
            passed = limit.receive if upload else await whole_body(limit)
        except ApiError as error:
            request.state.error = error
            await error.response()(scope, receive, send)
            return
        await self.app(scope, passed, send)

    @property
    def _upload_bytes(self) -> int:
        return self.settings.upload_mb * 10**6 + _FORM_BYTES


class Meter:
    """Counts and times what a client sends.

    Args:
        max_bytes: of the body. seconds: until its end must have come.
    """

    def __init__(self, receive: Receive, *, max_bytes: int, seconds: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._ends = time.monotonic() + seconds
        self._num_bytes = 0
        self._is_whole = False

    def check_announced(self, length: str | None) -> None:
        """Refuse at once what says that it is too large.

        Raises:
            ApiError: it does (413), or says no number (400).
        """
        if length is None:
            return
        if not (length.isascii() and length.isdigit()):
            raise ApiError(400, "content-length must be a number")
        self._check(int(length[:20]))

    async def receive(self) -> Message:
        """The next message.

        Raises:
            ApiError: the body is too large (413) or too slow (408).
        """
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout(self._ends - time.monotonic()):
                message = await self._receive()
        except TimeoutError as error:
            # The rest would be read as the next request.
            headers = {"Connection": "close"}
            message_ = f"the request did not arrive within {self._seconds:g} s"
            raise ApiError(408, message_, code="too_slow", headers=headers) from error
        if message["type"] == "http.request":
            self._num_bytes += len(message.get("body", b""))
            self._check(self._num_bytes)
            self._is_whole = not message.get("more_body", False)
        return message

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            size = f"{self._max_bytes / 1e6:.3g} MB"
            headers = {"Connection": "close"}
            message = f"the request is larger than the limit of {size}"
            raise ApiError(413, message, code="too_large", headers=headers)


def is_upload(request: Request) -> bool:
    """Whether a request may be as large as a document."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_file = kind in {"multipart/form-data", "application/octet-stream"}
    return is_file and request.url.path.startswith("/kb/")


async def whole_body(limit: Meter) -> Receive:
    """Receive a body; what is returned gives it in one piece, and then what comes after it.

    Raises:
        ApiError: as `Meter.receive`.
    """
    parts: list[bytes] = []
    message: Message = {"more_body": True}
    while message.get("more_body", False):
        message = await limit.receive()
        parts.append(message.get("body", b""))
    gone = message["type"] == "http.disconnect"
    first: list[Message] = [
        message if gone else {"type": "http.request", "body": b"".join(parts), "more_body": False}
    ]

    async def receive() -> Message:
        return first.pop() if first else await limit.receive()

    return receive
