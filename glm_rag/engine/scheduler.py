"""Continuous batching: answers of any threads decode together, each as if it were alone."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Generator, Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING
from weakref import WeakSet, ref

from glm_rag.engine.batch import Batch, Finished, Request
from glm_rag.engine.memory import first_line
from glm_rag.errors import ConfigError, GenerationError
from glm_rag.types import GenerationDelta, SamplingParams, SchedulerStats

if TYPE_CHECKING:
    from glm_rag.engine.engine import Engine

_LOG = logging.getLogger(__name__)

_CLOSED = "the engine stopped serving"
# So long the end of the process waits for the step in progress.
_LAST_STEP_SECONDS = 60.0


class Scheduler:
    """The answers that one engine computes at present. Any thread may use it.

    A thread of its own computes while there is something to compute, and ends then: a reader that
    is slow or gone holds up nobody. What a reader has not taken yet waits for it, at most
    `max_tokens` deltas.

    Args:
        engine: is not kept alive by its scheduler, only by answers that are wanted.
        max_running: most answers at once; others wait, first come, first served.

    Raises:
        ConfigError: `max_running` is below 1.
    """

    def __init__(self, engine: Engine, *, max_running: int = 8) -> None:
        self._engine = ref(engine)
        self._batch = Batch(max_running)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self.max_running = max_running
        _LIVE.add(self)

    @property
    def max_running(self) -> int:
        """Most answers at once; may be changed at any time."""
        return self._batch.max_running

    @max_running.setter
    def max_running(self, value: int) -> None:
        if value < 1:
            raise ConfigError(f"max_running must be at least 1, got {value}")
        self._batch.max_running = value

    @property
    def num_running(self) -> int:
        """Answers that are being read or written."""
        return self._batch.num_running

    @property
    def num_waiting(self) -> int:
        """Answers that wait for a place, for memory, or for the prompts before theirs."""
        return self._batch.num_waiting

    def stats(self) -> SchedulerStats:
        """Counts since the scheduler was made, and how many run and wait now."""
        totals = self._batch.totals
        return SchedulerStats(
            num_running=self.num_running,
            num_waiting=self.num_waiting,
            prompt_tokens=totals.prompt_tokens,
            cached_tokens=totals.cached_tokens,
            generated_tokens=totals.generated_tokens,
            finished=dict(totals.finished),
        )

    def serves(self, engine: Engine) -> bool:
        """Whether it computes for this engine."""
        return self._engine() is engine

    def stream(
        self, prompt_ids: Sequence[int], params: SamplingParams
    ) -> Generator[GenerationDelta, None, None]:
        """An answer as `Engine.generate` gives it, computed together with the others.

        It joins at the next step, or waits for a place or memory. Closing the generator, from
        any thread, frees the place after the step in progress; so does dropping it.

        Raises:
            ContextWindowError, ConfigError, ModelError: as `generate`, at once; ModelError where
                the memory would not do even without the other answers.
            GenerationError: the model computed NaN or infinite logits, the step failed for all,
                or the scheduler was closed.
        """
        engine = self._engine()
        if engine is None:
            raise GenerationError(_CLOSED)
        answer = _Answer(engine, *engine.checked(prompt_ids, params, held=self._batch.num_bytes))
        with self._lock:
            if self._is_closed:
                raise GenerationError(_CLOSED)
            if self._thread is None:
                self._thread = self._started()
            self._batch.waiting.append(answer.request)
        return answer

    def _started(self) -> threading.Thread:
        """The thread that computes; it looks at the batch when the lock is free."""
        thread = threading.Thread(target=self._drive, name="glm-rag-scheduler", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter goes away
            raise GenerationError(f"nothing can be computed: {first_line(error)}") from error
        return thread

    def close(self) -> None:
        """End the running and waiting answers with GenerationError, after the step in progress."""
        with self._lock:
            self._is_closed = True

    def join(self, timeout: float) -> None:
        """Wait until nothing is computed any more, at most so many seconds."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def after_fork(self) -> None:
        """In a child process the computing thread is gone, maybe with the lock in its hands."""
        self._lock, self._thread = threading.Lock(), None
        left, self._batch = self._batch, Batch(self.max_running)
        left.fail("the answer belongs to the process that was forked")

    def _drive(self) -> None:
        """Step until there is nothing left to do."""
        engine = self._engine()
        while True:
            with self._lock:
                if self._is_closed or engine is None:
                    self._batch.fail(_CLOSED)
                if engine is None or self._batch.is_empty:
                    self._thread = None
                    return
            try:
                self._batch.step(engine)
            except BaseException as error:  # noqa: BLE001 - readers must not wait for ever
                _LOG.exception("the scheduler's step failed")
                with self._lock:
                    self._batch.fail(f"the scheduler failed: {first_line(error)}")


class _Answer(Generator[GenerationDelta, None, None]):
    """The deltas of one request as they come. Unlike a generator it may be closed while another
    thread waits for its next delta, which then ends."""

    def __init__(self, engine: Engine, prompt: list[int], params: SamplingParams) -> None:
        self._engine = engine
        self._came: SimpleQueue[GenerationDelta | Finished | Exception | None] = SimpleQueue()
        self.request = Request(prompt, params, self._came.put)
        self._is_over = False

    def send(self, value: None) -> GenerationDelta:
        """The next delta, when it is there."""
        if self._is_over:
            raise StopIteration
        came = self._came.get()
        if self._is_over:  # closed meanwhile
            raise StopIteration
        if isinstance(came, GenerationDelta):
            return came
        self._is_over = True
        if isinstance(came, Exception):
            raise came
        if isinstance(came, Finished):
            came.save_in(self._engine.store)
        raise StopIteration

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> GenerationDelta:
        """Close, then raise."""
        self.close()
        if isinstance(typ, BaseException):
            raise typ
        return super().throw(typ, val, tb)

    def close(self) -> None:
        """No more is wanted; whoever waits for the next delta gets none."""
        self.request.is_closed = self._is_over = True
        self._came.put(None)

    def __del__(self) -> None:
        self.request.is_closed = True


_LIVE: WeakSet[Scheduler] = WeakSet()


def _after_fork() -> None:
    for scheduler in list(_LIVE):
        scheduler.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close_all() -> None:
    """A thread that is inside torch while the interpreter goes away would abort the process."""
    schedulers = list(_LIVE)
    for scheduler in schedulers:
        scheduler.close()
    for scheduler in schedulers:
        scheduler.join(_LAST_STEP_SECONDS)
