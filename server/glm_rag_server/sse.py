"""Server-sent events, as OpenAI streams them, until the client leaves."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from glm_rag_server.running import ClientGone, first_of, gone

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """A response whose body comes bit by bit; closes its source when the client leaves."""

    media_type = "text/event-stream"

    def __init__(
        self, body: AsyncGenerator[bytes, None], headers: Mapping[str, str] | None = None
    ) -> None:
        self.source = body
        self.status_code = 200
        self.background = None
        # nginx would collect the events otherwise.
        plain = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        self.init_headers({**plain, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            if await first_of(self._send(send), gone(receive)) is None:
                raise ClientGone
        finally:
            await self.source.aclose()

    async def _send(self, send: Send) -> bool:
        async for part in self.source:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return True


def event(data: Any) -> bytes:
    """One event."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode(errors="replace")


def comment(text: str) -> bytes:
    """What clients skip."""
    return f": {text}\n\n".encode()
