"""Work on knowledge bases that takes longer than a request.

A job belongs to the server and not to the request that began it: whoever asks sees how far it is.
Jobs of one knowledge base that write run one after another, knowledge bases take turns. What is
known of a job lives in memory; what it does lives in the knowledge base, which no stop can harm.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from glm_rag.errors import GlmRagError, KnowledgeBaseBusyError

log = logging.getLogger("glm_rag_server")

Kind = Literal["ingest", "verify", "rebuild", "import"]
State = Literal["queued", "running", "done", "failed", "stopped"]
Work = Callable[["Job"], None]

_AT_ONCE = 2  # each keeps some cores busy
_KEPT = 200
_MOST_WAITING = 100  # of one knowledge base
# Only these do not write.
_READERS: tuple[Kind, ...] = ("verify",)


class JobStopped(Exception):
    """Somebody has asked the job to end."""


@dataclass(frozen=True, slots=True)
class SentFile:
    """An uploaded file: its name as it was sent, and the source its document has."""

    name: str
    source: str


class Job:
    """One piece of work. The thread that does it writes, any other reads.

    Args:
        kb: name of the knowledge base.
        owner: who asked for it; jobs of one knowledge base take turns by owner.
        work: does it; raises `JobStopped` if it ends because it was asked to.

    Attributes:
        files: those that were sent with it.
        state: `queued`, `running`, then one of `done | failed | stopped`.
        progress: how far it is, None before that is known.
        waits_for: one line, while another process keeps it from writing.
        live: gives what `result` would be by now.
        result: what came of it. error: one line, of a failed one.
        created_at, started_at, ended_at: seconds since 1970.
        changes: grows with everything above.
    """

    def __init__(
        self,
        kb: str,
        kind: Kind,
        work: Work,
        *,
        owner: str = "",
        files: Sequence[SentFile] = (),
    ) -> None:
        self.id = uuid.uuid4().hex
        self.kb = kb
        self.kind = kind
        self.owner = owner
        self.files = tuple(files)
        self.state: State = "queued"
        self.progress: Mapping[str, Any] | None = None
        self.waits_for = ""
        self.live: Callable[[], Mapping[str, Any]] | None = None
        self.result: Mapping[str, Any] | None = None
        self.error = ""
        self.created_at = time.time()
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.changes = 0
        self._work = work
        self._stop = threading.Event()
        self._end = threading.Event()
        self._on_stop: Callable[[], None] | None = None

    @property
    def is_over(self) -> bool:
        """Nothing more will happen."""
        return self._end.is_set()

    @property
    def is_stopping(self) -> bool:
        """It was asked to end."""
        return self._stop.is_set()

    @property
    def writes(self) -> bool:
        """Whether it changes its knowledge base."""
        return self.kind not in _READERS

    def wait(self, seconds: float) -> bool:
        """Wait for the end at most so long; whether it came."""
        return self._end.wait(seconds)

    # ------------------------------------------------------------ for the work

    def tell(self, progress: Mapping[str, Any] | None = None, *, waits_for: str = "") -> None:
        """Say how far it is, or what it waits for."""
        self.progress = self.progress if progress is None else progress
        self.waits_for = waits_for
        self.changes += 1

    def check(self) -> None:
        """Raise `JobStopped` if it was asked to end."""
        if self._stop.is_set():
            raise JobStopped

    def pause(self, seconds: float) -> None:
        """Do nothing for so long, or `check` earlier."""
        self._stop.wait(seconds)
        self.check()

    def when_stopped(self, act: Callable[[], None]) -> None:
        """Call `act` once it is asked to end, from any thread; at once if it was already."""
        self._on_stop = act
        if self._stop.is_set():
            act()

    # ------------------------------------------------------------ for `Jobs`

    def ask_to_stop(self) -> None:
        """Let it end soon."""
        self._stop.set()
        self.changes += 1
        act = self._on_stop
        if act is not None:
            act()

    def run(self) -> None:
        """Do the work; never raises."""
        self.state, self.started_at = "running", time.time()
        self.changes += 1
        try:
            self.check()
            self._work(self)
        except JobStopped:
            self.finish("stopped")
        except GlmRagError as error:
            self.finish("failed", " ".join(str(error).split()))
        except Exception as error:  # noqa: BLE001 - whatever broke: whoever asks has to learn of it
            # Without the error's own words, which may hold text of documents.
            frames = traceback.extract_tb(error.__traceback__)
            where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
            name = type(error).__name__
            log.error("job %s (%s) broke off: %s at %s", self.id, self.kind, name, where)
            self.finish("failed", f"{name}: the server's log says where, under this job's id")
        else:
            self.finish("done")

    def finish(self, state: State, error: str = "") -> None:
        """Be over."""
        if self.result is None and self.live is not None:
            self.result = self.live()
        self.live = self._on_stop = None
        self.state, self.error, self.waits_for = state, error, ""
        self.ended_at = time.time()
        self.changes += 1
        self._end.set()


class Lane:
    """Jobs that wait for each other: owners take turns, those of one are done in order."""

    def __init__(self) -> None:
        self.waiting: list[Job] = []
        self._turns: Counter[str] = Counter()  # when each owner was served last

    def take(self) -> Job:
        """The next one, out of the line."""
        job = min(self.waiting, key=lambda job: self._turns[job.owner])
        self.waiting.remove(job)
        self._turns[job.owner] = self._turns.total() + 1
        return job


LaneKey = tuple[str, bool]


class Jobs:
    """All jobs of a server.

    Those that write into one knowledge base form a lane, those that only read it another. Of a
    lane one job runs at a time; lanes take turns.

    Args:
        at_once: most that run. kept: most that are remembered once they are over.
    """

    def __init__(self, *, at_once: int = _AT_ONCE, kept: int = _KEPT) -> None:
        self._at_once = at_once
        self._kept = kept
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Job] = OrderedDict()
        self._lanes: OrderedDict[LaneKey, Lane] = OrderedDict()
        self._running: dict[LaneKey, Job] = {}
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
            lane = self._lanes.setdefault((job.kb, job.writes), Lane())
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
                f"knowledge base {kb!r} is being deleted or renamed: try again later"
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
            lane = self._lanes.get((job.kb, job.writes))
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
            if len(self._running) >= self._at_once:
                return
            if key in self._running:
                continue
            if not lane.waiting:
                del self._lanes[key]
                continue
            job = self._running[key] = lane.take()
            # A daemon: what ends the server does not wait for a library of books.
            name = f"{job.kind}-{job.kb}"
            threading.Thread(target=self._run, args=(job, key), name=name, daemon=True).start()

    def _run(self, job: Job, key: LaneKey) -> None:
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
