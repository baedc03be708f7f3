"""Ctrl-C and SIGTERM: the first one asks the run to stop, the second one stops it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether the user has asked to stop.

    Args:
        wake: called in the signal handler, so it may do next to nothing (`SimpleQueue.put` may).
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over the signals; only the main thread can, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: set by something that is not Python, and so not to be restored by it.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._wake()
