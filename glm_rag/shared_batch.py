"""Calls of one LangChain `batch`: single calls in threads of their own, whose answers decode
together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from glm_rag.errors import GenerationError
from glm_rag.types import GenerationDelta, SamplingParams

if TYPE_CHECKING:
    from glm_rag.engine.engine import Engine
    from glm_rag.engine.scheduler import Scheduler

T = TypeVar("T")


class SharedBatch:
    """What calls of one batch share: threads, and a scheduler for each engine they use.

    Args:
        size: most calls at once.
    """

    def __init__(self, size: int) -> None:
        self.threads = ThreadPoolExecutor(size, thread_name_prefix="glm-rag-batch")
        self._size = size
        self._schedulers: dict[int, Scheduler] = {}  # by the engine's id
        self._opened = ExitStack()
        self._lock = threading.Lock()
        self._is_over = False

    def stream(
        self, engine: Engine, prompt_ids: Sequence[int], params: SamplingParams
    ) -> Generator[GenerationDelta, None, None]:
        """As `Engine.generate`, together with the other calls."""
        with self._lock:
            if self._is_over:
                raise GenerationError("the batch was broken off")
            if id(engine) not in self._schedulers:
                opened = self._opened.enter_context(engine.batch_scheduler(self._size))
                self._schedulers[id(engine)] = opened
            scheduler = self._schedulers[id(engine)]
        return scheduler.stream(prompt_ids, params)

    def stop(self) -> None:
        """End what runs after the step in progress; it fails, and so does what follows."""
        with self._lock:
            self._is_over = True
        self._opened.close()

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run a call in a thread of the batch."""
        context = copy_context()
        # A call that this one makes must not wait for a thread that waits for it.
        context.run(_IN_THREAD.set, True)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, partial(context.run, call))


_SHARED: ContextVar[SharedBatch | None] = ContextVar("glm_rag_batch", default=None)
_IN_THREAD: ContextVar[bool] = ContextVar("glm_rag_in_thread", default=False)


@contextmanager
def shared_batch(size: int) -> Iterator[SharedBatch]:
    """Calls made inside, in copies of this context, are calls of one batch."""
    shared = SharedBatch(size)
    token = _SHARED.set(shared)
    try:
        yield shared
        shared.threads.shutdown()
    finally:
        _SHARED.reset(token)
        shared.stop()
        shared.threads.shutdown(wait=False, cancel_futures=True)


def current_batch() -> SharedBatch | None:
    """The batch that the running call belongs to."""
    return _SHARED.get()


def batch_with_threads() -> SharedBatch | None:
    """The same where the call is not in a thread of the batch already."""
    return None if _IN_THREAD.get() else _SHARED.get()
