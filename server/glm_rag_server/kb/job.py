"""A piece of work on a knowledge base that takes longer than a request."""

from __future__ import annotations

import logging
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from glm_rag.errors import GlmRagError

log = logging.getLogger("glm_rag_server")

Kind = Literal["ingest", "verify", "rebuild", "copy", "warm"]
State = Literal["queued", "running", "done", "failed", "stopped"]
Work = Callable[["Job"], None]
# Jobs of one lane run one after another.
Lane = tuple[str, Literal["write", "read", "model"]]

# Those of one knowledge base wait for each other. What reads ahead has one model for all of them.
_LANES: dict[Kind, Literal["read", "model"]] = {"verify": "read", "warm": "model"}


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
        waits_for: one line, while something keeps it from going on.
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
    def lane(self) -> Lane:
        """What it waits in."""
        kind = _LANES.get(self.kind)
        return ("", "model") if kind == "model" else (self.kb, kind or "write")

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
            message = " ".join(str(error).split())
            log.warning("job %s (%s) failed: %s", self.id, self.kind, message)
            self.finish("failed", message)
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
