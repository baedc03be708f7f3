"""Messages between a run and its reading processes, over a socket, with a deadline.

A parser is not to be trusted with anything, the socket it inherits included: half a message, a
closed pipe, or a child of the parser that keeps the socket open must not hold up the run.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable

_HEADER = struct.Struct("!Q")
_MOST_BYTES = 8 << 30  # of one message; a longer one is no message of ours
_PIECE = 1 << 20
_LOOK_SECONDS = 0.5  # how often a silent process is asked whether it lives


class Channel:
    """One end of the socket. `EOFError`: the other end is gone, or talks nonsense."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def send(self, message: bytes) -> None:
        """Send one message, waiting as long as it takes."""
        self._socket.settimeout(None)
        self._socket.sendall(_HEADER.pack(len(message)) + message)

    def receive(
        self, *, seconds: float | None = None, is_alive: Callable[[], bool] = lambda: True
    ) -> bytes:
        """The next message.

        Args:
            seconds: most to wait for all of it.
            is_alive: whether the other process is; asked while nothing comes.

        Raises:
            TimeoutError: it did not come in time. EOFError: it never will.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        (length,) = _HEADER.unpack(self._exactly(_HEADER.size, deadline, is_alive))
        if length > _MOST_BYTES:
            raise EOFError
        return bytes(self._exactly(length, deadline, is_alive))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _exactly(
        self, size: int, deadline: float | None, is_alive: Callable[[], bool]
    ) -> bytearray:
        received = bytearray()
        while len(received) < size:
            self._socket.settimeout(_wait_seconds(deadline))
            try:
                piece = self._socket.recv(min(_PIECE, size - len(received)))
            except TimeoutError:
                if not is_alive():
                    raise EOFError from None
                continue
            if not piece:
                raise EOFError
            received += piece
        return received


def _wait_seconds(deadline: float | None) -> float:
    left = _LOOK_SECONDS if deadline is None else deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(left, _LOOK_SECONDS)
