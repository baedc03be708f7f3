"""Several files read and cut at once, ahead of the embedder, but not too far ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from glm_rag_ingest.jobs import Job
from glm_rag_ingest.plan import Step
from glm_rag_ingest.process import LoaderProcess
from glm_rag_ingest.reading import Reading

# Text read and not yet stored, in memory. Chunks and what is embedded of them take twice as much
# again, vectors of Chinese text a third.
MOST_BYTES = 32 << 20


class ReadingPool:
    """Threads that each drive one child process.

    Args:
        steps: in the order to read them; taken one by one.
        children: one thread is started for each.
        work: does one step with one child; nothing may come out but by its result.
        deliver: gets every result, in a thread of the pool.
        most_bytes: no other file is begun while the texts delivered and not yet given back with
            `release` take more.
        on_close: called when whatever is being read is broken off.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        children: Iterable[LoaderProcess],
        work: Callable[[Step, LoaderProcess], Reading | Job],
        deliver: Callable[[Reading | Job], None],
        most_bytes: int = MOST_BYTES,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._steps: Iterator[Step] = iter(steps)
        self._children = list(children)
        self._work = work
        self._deliver = deliver
        self._most_bytes = most_bytes
        self._on_close = on_close
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._serve, args=(child,), name="glm-rag-read", daemon=True)
            for child in self._children
        ]

    def release(self, num_bytes: int) -> None:
        """Texts of so many bytes are not needed any more."""
        with self._changed:
            self._bytes -= num_bytes
            self._changed.notify_all()

    def close(self) -> None:
        """Break off whatever is being read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for child in self._children:
            child.kill()
        self._on_close()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        for thread in self._threads:
            thread.join()

    def _serve(self, child: LoaderProcess) -> None:
        with child:
            while (step := self._next()) is not None:
                result = self._work(step, child)
                with self._changed:
                    if self._closed:
                        return
                    self._bytes += result.num_bytes
                self._deliver(result)

    def _next(self) -> Step | None:
        with self._changed:
            while self._bytes > self._most_bytes and not self._closed:
                self._changed.wait()
            return None if self._closed else next(self._steps, None)
