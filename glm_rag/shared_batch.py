"""Calls that arrive one by one, in threads of their own, and generate as one batch.

LangChain's `batch` is a number of single calls, each with its own callbacks, cache and errors.
They stay that; only the work of the engine is shared.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from glm_rag.errors import GenerationError
from glm_rag.types import GenerationDelta, SamplingParams

if TYPE_CHECKING:
    from glm_rag.engine.engine import Engine

T = TypeVar("T")


class SharedBatch:
    """Waits until each of its calls has brought a prompt or gone without, then generates.

    No thread of its own: whichever call needs its next delta computes a step for all.
    """

    def __init__(self, num_calls: int) -> None:
        # As many threads as calls: each waits for the others.
        self.threads = ThreadPoolExecutor(num_calls, thread_name_prefix="glm-rag-batch")
        self._num_expected = num_calls
        self._changed = threading.Condition()
        self._prompts: list[list[int]] = []
        self._params: list[SamplingParams] = []
        self._waiting: list[deque[GenerationDelta]] = []
        self._steps: Generator[tuple[int, GenerationDelta], None, None] | None = None
        self._error: BaseException | None = None

    def join(self, prompt_ids: Sequence[int], params: SamplingParams) -> int:
        """Bring a prompt; returns its row when the others have come or gone."""
        with self._changed:
            row = len(self._prompts)
            self._prompts.append(list(prompt_ids))
            self._params.append(params)
            self._waiting.append(deque())
            self.leave()
            self._changed.wait_for(lambda: self._num_expected <= 0)
        return row

    def leave(self) -> None:
        """One call less to wait for."""
        with self._changed:
            self._num_expected -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """End generation after the step in progress; the calls fail."""
        self._error = self._error or GenerationError("the batch was broken off")

    def next_delta(self, engine: Engine, row: int) -> GenerationDelta:
        """The next delta of a row."""
        with self._changed:
            while not self._waiting[row]:
                self._step(engine)
            return self._waiting[row].popleft()

    def _step(self, engine: Engine) -> None:
        if self._steps is None:
            size = len(self._prompts)
            self._steps = engine.generate_batch(self._prompts, self._params, batch_size=size)
        if self._error is not None:
            self._steps.close()
            raise self._error
        try:
            row, delta = next(self._steps)
        except BaseException as error:
            self._error = error
            raise
        self._waiting[row].append(delta)


class Seat:
    """One call's place in a batch. It serves one generation."""

    def __init__(self, batch: SharedBatch) -> None:
        self._batch = batch
        self.is_free = True

    def run(
        self, engine: Engine, prompt_ids: Sequence[int], params: SamplingParams
    ) -> Generator[GenerationDelta, None, None]:
        """As `LocalModel.run`, together with the other calls of the batch."""
        engine.check_prompt(prompt_ids)
        self.is_free = False
        row = self._batch.join(prompt_ids, params)
        while True:
            delta = self._batch.next_delta(engine, row)
            yield delta
            if delta.finish_reason is not None:
                return

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run a call that will use this seat in a thread of the batch."""
        loop, context = asyncio.get_running_loop(), copy_context()
        return await loop.run_in_executor(self._batch.threads, partial(context.run, call))

    def give_up(self) -> None:
        """Tell the others not to wait; without effect when the seat was used."""
        if self.is_free:
            self.is_free = False
            self._batch.leave()


_SEAT: ContextVar[Seat | None] = ContextVar("glm_rag_seat", default=None)


@contextmanager
def seated(batch: SharedBatch) -> Iterator[None]:
    """One call of the batch: what generates inside finds the seat by `free_seat`."""
    seat = Seat(batch)
    token = _SEAT.set(seat)
    try:
        yield
    finally:
        _SEAT.reset(token)
        seat.give_up()


def free_seat() -> Seat | None:
    """The seat of the call that is running, unless it was used."""
    seat = _SEAT.get()
    return seat if seat is not None and seat.is_free else None
