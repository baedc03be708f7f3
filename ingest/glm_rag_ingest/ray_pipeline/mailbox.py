"""One thread that talks to Ray, and what has gone wrong there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

from glm_rag_ingest.engines import Deliver

_END_SECONDS = 10.0  # a call to a cluster that is gone may hang
MOST_DEATHS = 3  # of workers over one file or batch; then it is the reason


class Mailbox:
    """Does one call after another in a thread of its own, so that its owner needs no locks.

    Args:
        deliver: gets what a call raises; it ends the run.
        on_tick: called when nothing has happened for `tick_seconds`.
    """

    def __init__(
        self,
        name: str,
        deliver: Deliver,
        *,
        tick_seconds: float | None = None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._deliver = deliver
        self._tick_seconds = tick_seconds
        self._on_tick = on_tick
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Begin; what was posted before waits until then."""
        self._thread.start()

    def post(self, call: Callable[..., None], *arguments: object) -> None:
        """Let the thread call it. Any thread may post."""
        self._calls.put(lambda: call(*arguments))

    def when_done(self, reference: Any, call: Callable[..., None], *arguments: object) -> None:
        """Let the thread call it with the arguments and the finished future of a Ray object."""

        def done(future: Future[Any]) -> None:  # in a thread of Ray's
            self.post(call, *arguments, future)

        reference.future().add_done_callback(done)

    def close(self) -> None:
        """End after what was posted; what comes later is not done."""
        self._calls.put(None)
        if self._thread.is_alive():
            self._thread.join(_END_SECONDS)

    def _serve(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=self._tick_seconds)
            except Empty:
                call = self._on_tick
            if call is None:
                return
            try:
                call()
            # A thread has nobody to raise to.
            except Exception as error:  # noqa: BLE001
                self._deliver(error)


def own_error(error: BaseException) -> Exception | None:
    """What the code on the node raised; None where its worker or its node died."""
    from ray.exceptions import RayError, RayTaskError

    if isinstance(error, RayTaskError):
        cause = error.cause
        return cause if isinstance(cause, Exception) else error
    if isinstance(error, RayError):
        return None
    return error if isinstance(error, Exception) else RuntimeError(str(error))


def cause_of_death(error: BaseException) -> str:
    """In a few words."""
    from ray.exceptions import NodeDiedError, OutOfMemoryError

    if isinstance(error, OutOfMemoryError):
        return "its node had no memory left"
    if isinstance(error, NodeDiedError):
        return "its node was lost"
    return "it was killed or crashed"
