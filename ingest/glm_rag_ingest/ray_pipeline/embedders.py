"""Embedders on the nodes, one for each processor; what one leaves undone another does."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from glm_rag.errors import GlmRagError
from glm_rag_ingest.embedding import Batch, Embedded, embedded
from glm_rag_ingest.engines import Deliver
from glm_rag_ingest.loaders.base import failure
from glm_rag_ingest.ray_pipeline.mailbox import MOST_DEATHS, Mailbox, cause_of_death, own_error

_TICK_SECONDS = 10.0
_START_SECONDS = 300.0
_WAITING = "waiting for the Ray cluster to have a processor free for an embedder"


@dataclass(frozen=True, slots=True)
class _Work:
    """A batch, and how many embedders have died of it."""

    batch: Batch
    deaths: int = 0


class RayEmbedders:
    """Gives each batch to an embedder that has none; see `glm_rag_ingest.engines.Embedder`.

    Args:
        hire: starts an embedder; gives its handle.
        dismiss: ends one.
        wanted: how many there should be; asked again from time to time, as nodes come and go.
        on_wait: told what the run waits for.
        start_seconds: the run fails when there has been no embedder for so long.
    """

    def __init__(
        self,
        deliver: Deliver,
        hire: Callable[[], Any],
        dismiss: Callable[[Any], None],
        wanted: Callable[[], int],
        on_wait: Callable[[str], None] | None = None,
        *,
        start_seconds: float = _START_SECONDS,
        tick_seconds: float = _TICK_SECONDS,
    ) -> None:
        self._deliver = deliver
        self._hire = hire
        self._dismiss = dismiss
        self._wanted = wanted
        self._on_wait = on_wait
        self._start_seconds = start_seconds
        # Only the mailbox's thread touches these.
        self._starting: list[Any] = []
        self._idle: list[Any] = []
        self._busy: list[Any] = []
        self._queue: deque[_Work] = deque()
        self._deaths_in_a_row = 0
        self._without_since: float | None = time.monotonic()
        self._capacity = 0
        self._mailbox = Mailbox(
            "glm-rag-ray-embed", deliver, tick_seconds=tick_seconds, on_tick=self._look
        )
        self._mailbox.post(self._hire_missing)
        self._mailbox.start()

    @property
    def capacity(self) -> int:
        """Embedders that have loaded their model."""
        return self._capacity

    def start(self, batch: Batch) -> None:
        """Embed a batch."""
        self._mailbox.post(self._enqueue, _Work(batch))

    def close(self) -> None:
        """End all embedders."""
        self._mailbox.post(self._dismiss_all)
        self._mailbox.close()

    # ------------------------------------------------------------ in the mailbox's thread

    def _look(self) -> None:
        self._hire_missing()
        since = self._without_since
        if since is None:
            return
        if time.monotonic() - since > self._start_seconds:
            raise GlmRagError(
                f"the Ray cluster had no room for an embedder for {self._start_seconds:.0f} s: "
                "add nodes, or wait until other jobs are done, and run the same command again"
            )
        if self._on_wait is not None:
            self._on_wait(_WAITING)
            self._on_wait = None  # once

    def _hire_missing(self) -> None:
        missing = self._wanted() - len(self._starting) - len(self._idle) - len(self._busy)
        for _ in range(missing):
            embedder = self._hire()
            self._starting.append(embedder)
            self._mailbox.when_done(embedder.prepare.remote(), self._prepared, embedder)

    def _prepared(self, embedder: Any, future: Future[str]) -> None:
        error = future.exception()
        if error is not None:
            own = own_error(error)
            if own is not None:
                raise GlmRagError(f"no embedder on the Ray cluster: {_line(own)}") from error
            self._lose(embedder, error)
            return
        if future.result():
            raise GlmRagError(f"no embedder on the Ray cluster: {future.result()}")
        self._starting.remove(embedder)
        self._idle.append(embedder)
        self._count()
        self._fill()

    def _enqueue(self, work: _Work) -> None:
        self._queue.append(work)
        self._fill()

    def _fill(self) -> None:
        while self._idle and self._queue:
            embedder, work = self._idle.pop(), self._queue.popleft()
            self._busy.append(embedder)
            reference = embedder.embed.remote(work.batch.texts)
            self._mailbox.when_done(reference, self._done, embedder, work)

    def _done(self, embedder: Any, work: _Work, future: Future[Any]) -> None:
        error = future.exception()
        own = None if error is None else own_error(error)
        if error is not None and own is None:
            self._died(embedder, work, error)
            return
        self._deaths_in_a_row = 0
        self._busy.remove(embedder)
        self._idle.append(embedder)
        self._fill()
        if own is not None:
            self._deliver(Embedded(work.batch, error=own))
        else:
            self._deliver(embedded(work.batch, future.result()))

    def _died(self, embedder: Any, work: _Work, error: BaseException) -> None:
        if work.deaths + 1 < MOST_DEATHS:
            self._queue.appendleft(replace(work, deaths=work.deaths + 1))
        else:
            detail = f"{MOST_DEATHS} embedders died of it; {cause_of_death(error)}"
            crash = failure("crash", detail, permanent=False)
            self._deliver(Embedded(work.batch, error=crash))
            self._deaths_in_a_row = 0  # they had their reason
        self._lose(embedder, error)

    def _lose(self, embedder: Any, error: BaseException) -> None:
        """An embedder is gone: have another, unless they all go."""
        for group in (self._starting, self._idle, self._busy):
            if embedder in group:
                group.remove(embedder)
        self._dismiss(embedder)
        self._count()
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row > MOST_DEATHS * max(1, self._wanted()):
            raise GlmRagError(f"embedders on the Ray cluster die one after another: {_line(error)}")
        self._hire_missing()
        self._fill()

    def _dismiss_all(self) -> None:
        for embedder in (*self._starting, *self._idle, *self._busy):
            self._dismiss(embedder)

    def _count(self) -> None:
        self._capacity = len(self._idle) + len(self._busy)
        if self._capacity:
            self._without_since = None
        elif self._without_since is None:
            self._without_since = time.monotonic()
        self._deliver(None)  # a batch may wait for this


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
