"""What jobs do: read files into a knowledge base, check it, make it again, copy it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_rag.build import open_knowledge_base
from glm_rag.errors import KnowledgeBaseBusyError
from glm_rag.settings import Settings
from glm_rag.store_copy import copy_within_store
from glm_rag.stores import reopen_knowledge_base
from glm_rag.types import IngestProgress, IngestReport
from glm_rag.types.plain import to_plain
from glm_rag_server.kb.job import Job, JobStopped, Work

if TYPE_CHECKING:
    from glm_rag_ingest.pipeline import IngestOptions

_LISTED = 1000  # failures, changes and warnings of one job
_RETRY_SECONDS = 0.5
_MOST_RETRY_SECONDS = 10.0
_BUSY = "another process is writing into the knowledge base"


def ingesting(settings: Settings, kb: str, paths: Sequence[Path], options: IngestOptions) -> Work:
    """Read files and folders into a knowledge base that exists; see `glm_rag_ingest.pipeline`."""

    def work(job: Job) -> None:
        with open_knowledge_base(settings, kb) as opened:
            _patiently(job, lambda: _ingest(job, opened, settings, paths, options))

    return work


def _ingest(
    job: Job, opened: Any, settings: Settings, paths: Sequence[Path], options: IngestOptions
) -> None:
    from glm_rag_ingest.pipeline import Ingestion, Listeners

    def tell(progress: IngestProgress) -> None:
        current = Path(progress.current).name  # where it lies is not everybody's business
        job.tell({"step": "ingesting", **to_plain(progress), "current": current})

    ingestion = Ingestion(paths, opened, settings, options, Listeners(tell))
    # A run calls itself interrupted until it has ended.
    job.live = lambda: {**summary(ingestion.report()), "interrupted": job.is_stopping}
    job.when_stopped(ingestion.stop)
    report = ingestion.run()
    job.result = summary(report)
    if report.interrupted:
        raise JobStopped


def summary(report: IngestReport) -> Mapping[str, Any]:
    """A report as JSON, with the first thousand of what may be very long."""
    short = replace(
        report,
        failures=report.failures[:_LISTED],
        changes=report.changes[:_LISTED],
        warnings=report.warnings[:_LISTED],
    )
    return {**to_plain(short), "num_failures": len(report.failures)}


def verifying(settings: Settings, kb: str) -> Work:
    """Check everything in a knowledge base; nothing is written."""

    def work(job: Job) -> None:
        with reopen_knowledge_base(settings, kb) as opened:
            report = opened.verify(on_progress=lambda *at: _step(job)("checking", *at))
        job.result = to_plain(report)

    return work


def rebuilding(settings: Settings, kb: str, *, embed: bool) -> Work:
    """Make what is derived again; a stopped one leaves the old state."""

    def work(job: Job) -> None:
        with open_knowledge_base(settings, kb) as opened:
            _patiently(job, lambda: opened.rebuild(embed=embed, on_progress=_step(job)))
            info = opened.info()
        job.result = {"num_chunks": info.num_chunks, "embedder": info.embeddings}

    return work


def copying(
    settings: Settings, kb: str, to: str, barred: Callable[[str], AbstractContextManager[None]]
) -> Work:
    """Copy a knowledge base under another name, which is `barred` to other jobs meanwhile."""

    def work(job: Job) -> None:
        def copy() -> None:
            step = _step(job)
            report = copy_within_store(
                settings, kb, to, on_progress=lambda *at: step("copying", *at)
            )
            job.result = {"to": to, **to_plain(report)}

        with barred(to):
            _patiently(job, copy)

    return work


def _step(job: Job) -> Callable[[str, int, int], None]:
    """What takes a step, done and total; it ends the work if that was asked for."""

    def tell(step: str, done: int, total: int) -> None:
        job.check()
        job.tell({"step": step, "done": done, "total": total})

    return tell


def _patiently(job: Job, act: Callable[[], None]) -> None:
    """Do it, once no other process writes into the knowledge base."""
    for attempt in count(1):
        with suppress(KnowledgeBaseBusyError):
            act()
            return
        job.tell(waits_for=_BUSY)
        job.pause(min(attempt * _RETRY_SECONDS, _MOST_RETRY_SECONDS))  # each looks at all files
