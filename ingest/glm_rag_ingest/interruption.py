"""Ctrl-C and SIGTERM: the first one asks the run to stop, the second one stops it.

A program without signals of its own, such as a page, asks through an event.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stopped(Exception):
    """The program around a run has asked it to stop."""


class Interruption:
    """Whether somebody has asked to stop.

    Args:
        wake: called in the signal handler, so it may do next to nothing (`SimpleQueue.put` may).
        stop: set by another thread; seen at the next look, not at once.
    """

    def __init__(self, wake: Callable[[], None], stop: threading.Event) -> None:
        self._wake = wake
        self._stop = stop
        self._signalled = False

    @property
    def requested(self) -> bool:
        """By a signal or through the event."""
        return self._signalled or self._stop.is_set()

    def end(self) -> NoReturn:
        """End the run as it was asked for.

        Raises:
            KeyboardInterrupt: by a signal. Stopped: through the event.
        """
        raise KeyboardInterrupt if self._signalled else Stopped

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
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True
        self._wake()
