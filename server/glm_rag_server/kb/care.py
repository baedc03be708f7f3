"""`/kb/{name}/verify`, `rebuild` and `warm`: the care of knowledge bases."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Response

from glm_rag_server.described import CARE, errors
from glm_rag_server.kb import requests, schemas
from glm_rag_server.kb.job import Job
from glm_rag_server.kb.job_routes import Wait, answer
from glm_rag_server.kb.state import READ, Admin, Context, Opened, TheState, Writer
from glm_rag_server.kb.warming import budget_of, warming
from glm_rag_server.kb.work import rebuilding, verifying

router = APIRouter(prefix="/kb", tags=[CARE], responses=errors(400, 404, 409))

_JOB = "the job: not over yet (202), or over (200)"
# Without a body.
_REBUILD, _WARM = requests.RebuildRequest(), requests.WarmRequest()


@router.post(
    "/{name}/verify",
    status_code=202,
    summary="Check everything in a knowledge base",
    response_description=_JOB,
)
async def verify(
    key: Writer, kb: Opened, response: Response, context: Context, state: TheState, wait: Wait = 0
) -> schemas.Job:
    """Against the stored texts; nothing is changed. No finding is expected."""
    job = Job(kb.name, "verify", verifying(context.settings, kb.name), owner=key.id)
    state.jobs.submit(job)
    return await answer(job, wait, context, response)


@router.post(
    "/{name}/verify/citations",
    summary="Check citations of earlier answers",
    response_description="those that no longer open to their quote",
    responses=errors(408, 413),
    dependencies=[READ],
)
def verify_citations(kb: Opened, wanted: requests.CitationsRequest) -> schemas.CitationsChecked:
    """Whether the documents still hold their quotes where they say so."""
    found = kb.verify_citations([citation.model_dump() for citation in wanted.citations])
    return schemas.CitationsChecked(
        num_citations=len(wanted.citations),
        findings=[schemas.Finding.model_validate(finding) for finding in found],
    )


@router.post(
    "/{name}/rebuild",
    status_code=202,
    summary="Make what is derived again",
    response_description=_JOB,
    responses=errors(408, 413),
)
async def rebuild(
    key: Admin,
    kb: Opened,
    response: Response,
    context: Context,
    state: TheState,
    wanted: requests.RebuildRequest = _REBUILD,
    wait: Wait = 0,
) -> schemas.Job:
    """Keyword index, totals and vector index, on request all vectors. A job that is stopped leaves
    the old state.
    """
    work = rebuilding(context.settings, kb.name, embed=wanted.embed)
    job = Job(kb.name, "rebuild", work, owner=key.id)
    state.jobs.submit(job)
    return await answer(job, wait, context, response)


@router.post(
    "/{name}/warm",
    status_code=202,
    summary="Read passages ahead",
    response_description=_JOB,
    responses=errors(408, 413, 503),
)
async def warm(
    key: Writer,
    kb: Opened,
    response: Response,
    context: Context,
    state: TheState,
    wanted: requests.WarmRequest = _WARM,
    wait: Wait = 0,
) -> schemas.Job:
    """With the model and onto the disk, the most central ones first, so that answers from them
    start sooner. It goes on only while nobody is being answered, one passage at a time; what was
    read before is skipped.
    """
    budget = await to_thread.run_sync(budget_of, context, kb, wanted.budget_mb)
    work = warming(context, kb.name, budget, dry_run=wanted.dry_run)
    job = Job(kb.name, "warm", work, owner=key.id)
    state.jobs.submit(job)
    return await answer(job, wait, context, response)
