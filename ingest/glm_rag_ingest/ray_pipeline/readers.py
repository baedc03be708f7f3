"""Files read and cut by tasks on the nodes, a task for each file, but not too far ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from glm_rag.errors import GlmRagError
from glm_rag_ingest.engines import Deliver
from glm_rag_ingest.loaders.base import Loaded, failure
from glm_rag_ingest.plan import Step
from glm_rag_ingest.pool import MOST_BYTES
from glm_rag_ingest.ray_pipeline.mailbox import MOST_DEATHS, Mailbox, cause_of_death, own_error
from glm_rag_ingest.ray_pipeline.remote import Contents, NotHere
from glm_rag_ingest.reading import Reading

# A file that the node has not is sent there, if it is not larger.
MOST_SENT = 128 << 20
# Before a file is read its text counts as the file's size, but not as more than this: of a large
# PDF or presentation most is pictures.
_MOST_GUESSED = 4 << 20

Submit = Callable[[Step, Loaded | None, Contents | None], Any]


@dataclass(frozen=True, slots=True)
class _Task:
    """A step on its way.

    Attributes:
        sends: the node that was asked first has not the file.
        deaths: workers that died of it.
    """

    step: Step
    sends: bool = False
    deaths: int = 0

    @property
    def num_bytes(self) -> int:
        """Memory it will take, estimated."""
        size = self.step.file.size
        return size if self.sends else min(size, _MOST_GUESSED)


class RayReaders:
    """Keeps so many tasks under way; see `glm_rag_ingest.engines.Readers`.

    Args:
        submit: starts the task of a step, with what is stored of it and its bytes; gives the
            reference to the result.
        cancel: breaks off a task.
        stored: the documents that are kept under a source.
        most_tasks: files read at once.
        most_bytes: no other file is begun while texts that were delivered and not given back, and
            those under way, take more.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        deliver: Deliver,
        submit: Submit,
        cancel: Callable[[Any], None],
        stored: Callable[[str], Loaded],
        *,
        most_tasks: int,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._deliver = deliver
        self._submit = submit
        self._cancel = cancel
        self._stored = stored
        self._most_tasks = most_tasks
        self._most_bytes = most_bytes
        # Only the mailbox's thread touches these.
        self._steps: Iterator[Step] = iter(steps)
        self._again: deque[_Task] = deque()
        self._running: dict[Any, _Task] = {}
        self._bytes = 0
        self._mailbox = Mailbox("glm-rag-ray-read", deliver)
        self._closed = False

    def release(self, num_bytes: int) -> None:
        """Texts of so many bytes are not needed any more."""
        self._mailbox.post(self._release, num_bytes)

    def close(self) -> None:
        """Break off whatever is being read."""
        self._closed = True
        self._mailbox.post(self._cancel_all)

    def __enter__(self) -> Self:
        self._mailbox.post(self._fill)
        self._mailbox.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        self._mailbox.close()

    # ------------------------------------------------------------ in the mailbox's thread

    def _release(self, num_bytes: int) -> None:
        self._bytes -= num_bytes
        self._fill()

    def _cancel_all(self) -> None:
        for reference in self._running:
            self._cancel(reference)
        self._running.clear()

    def _fill(self) -> None:
        while not self._closed and len(self._running) < self._most_tasks and self._has_room():
            task = self._next()
            if task is None:
                return
            self._begin(task)

    def _has_room(self) -> bool:
        under_way = sum(task.num_bytes for task in self._running.values())
        return self._bytes + under_way <= self._most_bytes

    def _next(self) -> _Task | None:
        if self._again:
            return self._again.popleft()
        step = next(self._steps, None)
        return None if step is None else _Task(step)

    def _begin(self, task: _Task) -> None:
        step = task.step
        may_need_stored = "resplit" in (step.task, step.then if step.task == "compare" else "")
        try:
            stored = self._stored(step.file.source) if may_need_stored else None
            contents = _contents(step) if task.sends else None
        except Exception as error:  # noqa: BLE001 - as in `reading.read`
            self._deliver(Reading(step, error=error))
            return
        reference = self._submit(step, stored, contents)
        self._running[reference] = task
        self._mailbox.when_done(reference, self._done, reference)

    def _done(self, reference: Any, future: Future[Any]) -> None:
        task = self._running.pop(reference, None)
        if self._closed or task is None:
            return
        error = future.exception()
        if error is not None:
            self._failed(task, error)
        elif isinstance(future.result(), NotHere):
            self._again.append(replace(task, sends=True))
        else:
            self._bytes += future.result().num_bytes
            self._deliver(future.result())
        self._fill()

    def _failed(self, task: _Task, error: BaseException) -> None:
        own = own_error(error)
        if isinstance(own, ImportError):
            own = GlmRagError(f"a node of the Ray cluster cannot read documents: {own}")
        if own is not None:
            self._deliver(Reading(task.step, error=own))
        elif task.deaths + 1 < MOST_DEATHS:
            self._again.append(replace(task, deaths=task.deaths + 1))
        else:
            detail = f"{MOST_DEATHS} workers died of it; {cause_of_death(error)}"
            crash = failure("crash", detail, permanent=False)
            self._deliver(Reading(task.step, error=crash))


def _contents(step: Step) -> Contents:
    """A file's bytes, for a node that has not the file.

    Raises:
        DocumentError: too large to be sent, or it cannot be read here either.
    """
    if step.file.size > MOST_SENT:
        raise failure(
            "unreadable",
            f"a node of the Ray cluster has not this file, and it is too large to be sent "
            f"({step.file.size >> 20} MB, at most {MOST_SENT >> 20}): put it where all nodes see "
            "it under the same path",
            permanent=False,
        )
    try:
        with step.file.path.open("rb") as file:
            status = os.fstat(file.fileno())
            return Contents(file.read(MOST_SENT), status.st_mtime_ns)
    except OSError as error:
        detail = (error.strerror or type(error).__name__).lower()
        raise failure("unreadable", detail, permanent=False) from error
