"""Ingestion behind the page: one run for each knowledge base, whoever looks at it.

A run belongs to the server and not to a tab: closing or reloading the page leaves it alone, and
every visitor sees how far it is. Files that are added meanwhile come next.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from glm_rag.errors import GlmRagError
from glm_rag.settings import Settings
from glm_rag.types import IngestProgress, IngestReport

if TYPE_CHECKING:
    from glm_rag_ingest.pipeline import Ingestion

log = logging.getLogger(__name__)

_END_SECONDS = 5.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Batch:
    """What one visitor added.

    Attributes:
        within: folders in which all files must really lie; empty: anywhere.
        retry_failed: read again what failed for good.
    """

    settings: Settings
    paths: tuple[Path, ...]
    within: tuple[Path, ...] = ()
    retry_failed: bool = False


class Run:
    """Batches into one knowledge base, one after another, in a thread of its own.

    Attributes:
        progress: of the batch at hand, None before it begins.
        report: of all batches so far.
        error: what ended the run.
        is_over: nothing more will happen.
    """

    def __init__(self, kb: str, batches: Sequence[Batch], after: Run | None = None) -> None:
        self.kb = kb
        self._after = after
        self.progress: IngestProgress | None = None
        self.report = IngestReport()
        self._reports: list[IngestReport] = []
        self._begun = 0  # batches
        self.error: Exception | None = None
        self.is_over = False
        self.is_stopping = False
        self.batches = list(batches)
        self._waiting = deque(self.batches)
        self._now: Ingestion | None = None
        self._lock = threading.Lock()
        # A daemon: the server's Ctrl-C does not wait for a library of books.
        self._thread = threading.Thread(target=self._work, name=f"ingest-{kb}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def add(self, batches: Sequence[Batch]) -> bool:
        """Take more batches; false if the run is at its end."""
        with self._lock:
            if self.is_over or self.is_stopping:
                return False
            self.batches.extend(batches)
            self._waiting.extend(batches)
            return True

    def stop(self) -> None:
        """End after the passages at hand; what is finished stays."""
        with self._lock:
            self.is_stopping = True
            self._waiting.clear()
            if self._now is not None:
                self._now.stop()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def report_of(self, batch: Batch) -> IngestReport | None:
        """What became of one of the batches; None before that is known."""
        at = self._place(batch)
        return self._reports[at] if at < len(self._reports) else None

    def error_of(self, batch: Batch) -> Exception | None:
        """What ended the run during one of the batches, or before it began."""
        return self.error if self._place(batch) + 1 >= self._begun else None

    def _place(self, batch: Batch) -> int:
        return next(number for number, other in enumerate(self.batches) if other is batch)

    def wait_for(self, batch: Batch, seconds: float) -> bool:
        """Wait for the end of one batch; whether it came, or will not come any more."""
        end = time.monotonic() + seconds
        while self.report_of(batch) is None and not self.is_over:
            if time.monotonic() >= end:
                return False
            self._thread.join(_LOOK_SECONDS)
        return True

    def _work(self) -> None:
        if self._after is not None:  # it was stopped and still ends
            self._after.wait()
            self._after = None
        try:
            while (ingestion := self._next()) is not None:
                try:
                    ingestion.run()
                finally:
                    report = ingestion.report()
                    self._reports.append(report)
                    self.report = merged(self.report, report)
        except GlmRagError as error:
            self.error = error
        except Exception as error:  # whatever broke: the page has to say so
            log.exception("the ingestion into %s broke off", self.kb)
            self.error = error
        finally:
            with self._lock:
                self.is_over = True

    def _next(self) -> Ingestion | None:
        from glm_rag_ingest.pipeline import Ingestion, IngestOptions, Listeners

        with self._lock:
            if not self._waiting:
                self.is_over = True
                return None
            batch = self._waiting.popleft()
            self._begun += 1
            options = IngestOptions(retry_failed=batch.retry_failed, within=batch.within, wait=0.0)
            self._now = Ingestion(
                batch.paths, self.kb, batch.settings, options, Listeners(self._tell)
            )
            return self._now

    def _tell(self, progress: IngestProgress) -> None:
        self.progress = progress


class Runs:
    """All runs of this server."""

    def __init__(self) -> None:
        self._runs: dict[tuple[Path, str], Run] = {}
        self._lock = threading.Lock()
        atexit.register(self._end)

    def add(self, kb: str, *batches: Batch) -> Run:
        """Read at least one batch into `kb`: at once, or after what is being read."""
        key = (batches[0].settings.home, kb)
        with self._lock:
            known = self._runs.get(key)
            if known is not None and known.add(batches):
                return known
            run = self._runs[key] = Run(kb, batches, known)
            run.start()
            return run

    def get(self, home: Path, kb: str) -> Run | None:
        """The run into `kb`, or the last one until it is dismissed."""
        return self._runs.get((home, kb))

    def dismiss(self, home: Path, kb: str) -> None:
        """Forget a run that is over."""
        with self._lock:
            run = self._runs.get((home, kb))
            if run is not None and run.is_over:
                del self._runs[home, kb]

    def _end(self) -> None:
        running = [run for run in self._runs.values() if not run.is_over]
        for run in running:
            run.stop()
        for run in running:
            run.wait(_END_SECONDS)


SHARED = Runs()


def merged(one: IngestReport, other: IngestReport) -> IngestReport:
    """The report of two runs after each other."""
    counts = (
        *("num_added", "num_updated", "num_skipped", "num_deleted", "num_chunks", "seconds"),
        *("num_failed_before", "num_embedded", "num_copies", "num_resplit"),
    )
    sums = {name: getattr(one, name) + getattr(other, name) for name in counts}
    return replace(
        other,
        **sums,
        failures=(*one.failures, *other.failures),
        warnings=(*one.warnings, *other.warnings),
        changes=(*one.changes, *other.changes),
    )
