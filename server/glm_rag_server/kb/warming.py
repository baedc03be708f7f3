"""What the job `warm` does: read passages ahead, while nobody is being answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from glm_rag.build import open_knowledge_base, templates_for
from glm_rag.local_model import LocalModel
from glm_rag.types import WarmReport
from glm_rag.types.plain import to_plain
from glm_rag_server.errors import ApiError
from glm_rag_server.kb.job import Job, Work

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.waiting import FairLine
    from glm_rag.warming import WarmPlan
    from glm_rag_server.context import ServerContext

_DEFAULT_MB = 4000
_LOOK_SECONDS = 0.1
_BUSY = "answers are being written: it goes on when nobody is being answered"


def budget_of(context: ServerContext, kb: KnowledgeBase, budget_mb: int | None) -> int:
    """Most bytes on disk, after a look at what would make the job fail.

    Raises:
        ApiError: the server keeps no files, or fewer bytes; its model is behind another server;
            the knowledge base is empty.
        GlmRagError: the model is not here, or not yet.
    """
    cache = context.settings.cache
    if not (cache.enabled and cache.disk_mb):
        message = "this server keeps no files of what was read: see cache.enabled and cache.disk_mb"
        raise ApiError(400, message, code="unsupported")
    if budget_mb is not None and budget_mb > cache.disk_mb:
        message = f"budget_mb is above the server's cache.disk_mb ({cache.disk_mb}): lower it"
        raise ApiError(400, message, param="budget_mb")
    if not isinstance(context.models.llm(), LocalModel):
        message = "the model is behind another server, which keeps what was read by itself"
        raise ApiError(400, message, code="unsupported")
    context.models.check_model()
    if kb.info().num_chunks == 0:
        message = f"knowledge base {kb.name!r} is empty: upload documents first"
        raise ApiError(409, message, code="knowledge_base_error")
    return (budget_mb or min(_DEFAULT_MB, cache.disk_mb)) * 10**6


def warming(context: ServerContext, kb: str, budget: int, *, dry_run: bool) -> Work:
    """Read passages ahead, most central first; see `glm_rag.warming`."""

    def work(job: Job) -> None:
        from glm_rag.warming import plan, warm

        settings, llm = context.settings, context.models.llm()
        with open_knowledge_base(settings, kb) as opened:
            passages = _while_wanted(job, opened.central_passages())
            templates = templates_for(settings, opened)
            planned = plan(passages, llm, budget=budget, templates=templates)
        reports = _predicted(planned, llm) if dry_run else warm(planned, llm)
        for report in _between_answers(job, context.line, reports):
            job.result = to_plain(report)
            job.tell(_progress(report))

    return work


def _predicted(planned: WarmPlan, llm: Any) -> Iterator[WarmReport]:
    from glm_rag.warming import predict

    yield predict(planned, llm)


def _while_wanted(job: Job, passages: Iterable[Document]) -> Iterator[Document]:
    for passage in passages:
        job.check()
        yield passage


def _between_answers(
    job: Job, line: FairLine, reports: Iterator[WarmReport]
) -> Iterator[WarmReport]:
    """Each step begins when nobody is being answered; who comes meanwhile shares the machine with
    one passage at most.
    """
    while True:
        if is_busy(line):
            job.tell(waits_for=_BUSY)
        while is_busy(line):
            job.pause(_LOOK_SECONDS)
        job.check()
        report = next(reports, None)
        if report is None:
            return
        yield report


def is_busy(line: FairLine) -> bool:
    """Whether somebody is being answered, or waits for that."""
    return bool(line.num_running or line.num_waiting)


def _progress(report: WarmReport) -> dict[str, Any]:
    return {
        "step": "reading",
        "done": report.num_read,
        "total": report.num_passages - report.num_present,
        "seconds_left": report.seconds_left,
    }
