"""A connection whose requests have to begin in time.

uvicorn waits for the lines above a body as long as a client likes to take, which costs it little
and the server a connection; `limits` sees a request only once these have come.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def hasty(seconds: float) -> type[H11Protocol]:
    """A protocol that closes connections on which a request's head takes longer than so long."""

    class Hasty(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop_watching()

        def _watch(self) -> None:
            # Idle: no whole head since the last response. Between requests uvicorn's own clock
            # runs, until the first byte of the next one.
            if self.conn.our_state is not h11.IDLE:
                self._stop_watching()
            elif self._late is None:
                self._late = self.loop.call_later(seconds, self.transport.close)

        def _stop_watching(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Hasty
