"""Ends an answer from outside of the thread that reads it.

That thread may be waiting for the first token, and would not notice that nobody wants it any more.
So whoever runs it sets up a `Breaker` around it, and the model says `on_break` how it is ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

End = Callable[[], None]


class Breaker:
    """Breaks off what runs `inside` it. Any thread may use it, once or more often."""

    def __init__(self) -> None:
        self._broken = threading.Event()
        self._ends: list[End] = []

    @property
    def is_broken(self) -> bool:
        """Whether it was broken off; what comes afterwards is not to be trusted to be whole."""
        return self._broken.is_set()

    def break_off(self) -> None:
        """End what runs, and at once what would begin."""
        self._broken.set()
        for end in list(self._ends):
            end()

    def add(self, end: End) -> None:
        """Have `end` called when it is broken off, by the thread that does so; it may be called
        twice. Where it is broken already, now."""
        self._ends.append(end)
        if self.is_broken:
            end()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What models begin in this context until it ends is broken off with it."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)
            # A breaker that is kept is not to keep models whose answers are over.
            self._ends.clear()


_CURRENT: ContextVar[Breaker | None] = ContextVar("glm_rag_breaker", default=None)


def on_break(end: End) -> None:
    """Tell the breaker of this context, if there is one, what to call when it is broken off."""
    if (breaker := _CURRENT.get()) is not None:
        breaker.add(end)
