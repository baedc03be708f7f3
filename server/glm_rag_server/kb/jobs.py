"""All jobs of a server: who waits for whom, and how they end.

A job belongs to the server and not to the request that began it: whoever asks sees how far it is.
Jobs of one knowledge base that write run one after another, knowledge bases take turns. What is
known of a job lives in memory; what it does lives in the knowledge base, which no stop can harm.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from glm_rag.errors import KnowledgeBaseBusyError
from glm_rag_server.kb.job import Job, Lane

_AT_ONCE = 2  # each keeps some cores busy
_KEPT = 200
_MOST_WAITING = 100  # of one knowledge base


class Queue:
    """Jobs that wait for each other: owners take turns, those of one are done in order."""

    def __init__(self) -> None:
        self.waiting: list[Job] = []
        self._num_taken = 0
        self._turns: dict[str, int] = {}  # when each owner was served last

    def take(self) -> Job:
        """The next one, out of the line."""
        job = min(self.waiting, key=lambda job: self._turns.get(job.owner, 0))
        self.waiting.remove(job)
        self._num_taken += 1
        self._turns[job.owner] = self._num_taken
        return job


class Jobs:
    """All jobs of a server.

    Those that write into one knowledge base form a lane, those that only read it another, and those
    that read ahead with the model one for all. Of a lane one job runs at a time; lanes take turns.

    Args:
        at_once: most that run, those of the model not counted: they wait most of their time.
        kept: most that are remembered once they are over.
    """

    def __init__(self, *, at_once: int = _AT_ONCE, kept: int = _KEPT) -> None:
        self._at_once = at_once
        self._kept = kept
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Job] = OrderedDict()
        self._lanes: OrderedDict[Lane, Queue] = OrderedDict()
        self._running: dict[Lane, Job] = {}
        self._barred: set[str] = set()
        self._is_closed = False

    def submit(self, job: Job) -> Job:
        """Queue a job; it begins when its turn comes.

        Raises:
            KnowledgeBaseBusyError: the knowledge base is being deleted or renamed, too many jobs
                of it wait, or the server ends.
        """
        with self._lock:
            self._check(job.kb)
            lane = self._lanes.setdefault(job.lane, Queue())
            if len(lane.waiting) >= _MOST_WAITING:
                raise KnowledgeBaseBusyError(
                    f"{len(lane.waiting)} jobs of knowledge base {job.kb!r} wait: try again later"
                )
            lane.waiting.append(job)
            self._known[job.id] = job
            self._forget_old()
            self._begin()
        return job

    def check(self, kb: str) -> None:
        """Whether `submit` would take a job of `kb`, before it is worth anybody's while.

        Raises:
            KnowledgeBaseBusyError: as `submit`, but for the number of jobs.
        """
        with self._lock:
            self._check(kb)

    def _check(self, kb: str) -> None:
        if self._is_closed:
            raise KnowledgeBaseBusyError("the server is shutting down: try again later")
        if kb in self._barred:
            raise KnowledgeBaseBusyError(
                f"knowledge base {kb!r} is being made, deleted or renamed: try again later"
            )

    def of(self, kb: str) -> list[Job]:
        """The jobs of a knowledge base that are known, newest first."""
        with self._lock:
            return [job for job in reversed(self._known.values()) if job.kb == kb]

    def get(self, kb: str, key: str) -> Job | None:
        """A job by its id, None if it is not known (any more)."""
        with self._lock:
            job = self._known.get(key)
        return job if job is not None and job.kb == kb else None

    def stop(self, job: Job) -> None:
        """Let a job end: at once if it waits, else after the piece at hand, which stays."""
        with self._lock:
            lane = self._lanes.get(job.lane)
            is_waiting = lane is not None and job in lane.waiting
            if lane is not None and is_waiting:
                lane.waiting.remove(job)
        job.ask_to_stop()
        if is_waiting:
            job.finish("stopped")

    @contextmanager
    def barred(self, kb: str) -> Iterator[None]:
        """No job of `kb` begins inside.

        Raises:
            KnowledgeBaseBusyError: somebody else is doing the same, or the server ends.
        """
        with self._lock:
            self._check(kb)
            self._barred.add(kb)
        try:
            yield
        finally:
            with self._lock:
                self._barred.discard(kb)

    def end(self, kb: str, seconds: float) -> bool:
        """Stop all jobs of a knowledge base and wait for their end; whether it came."""
        return self._end([job for job in self.of(kb) if not job.is_over], seconds)

    def forget(self, kb: str) -> None:
        """Forget the jobs of a knowledge base that are over."""
        with self._lock:
            for job in [job for job in self._known.values() if job.kb == kb and job.is_over]:
                del self._known[job.id]

    def close(self, seconds: float = 5.0) -> None:
        """Take no more jobs, stop all and wait for their end at most so long."""
        with self._lock:
            self._is_closed = True
            jobs = [job for job in self._known.values() if not job.is_over]
        self._end(jobs, seconds)

    def _end(self, jobs: list[Job], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        for job in jobs:
            self.stop(job)
        return all(job.wait(max(0.0, deadline - time.monotonic())) for job in jobs)

    # ------------------------------------------------------------ under the lock

    def _begin(self) -> None:
        """Start as many jobs as may run; a lane that was served is behind the others."""
        for key, lane in list(self._lanes.items()):
            if key in self._running or (key[1] != "model" and self._is_full):
                continue
            if not lane.waiting:
                del self._lanes[key]
                continue
            job = self._running[key] = lane.take()
            # A daemon: what ends the server does not wait for a library of books.
            name = f"{job.kind}-{job.kb}"
            threading.Thread(target=self._run, args=(job, key), name=name, daemon=True).start()

    @property
    def _is_full(self) -> bool:
        return sum(kind != "model" for _, kind in self._running) >= self._at_once

    def _run(self, job: Job, key: Lane) -> None:
        try:
            job.run()
        finally:
            with self._lock:
                del self._running[key]
                self._lanes.move_to_end(key)
                if not self._is_closed:
                    self._begin()

    def _forget_old(self) -> None:
        over = [key for key, job in self._known.items() if job.is_over]
        for key in over[: max(0, len(over) - self._kept)]:
            del self._known[key]
