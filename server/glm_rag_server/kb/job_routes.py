"""`/kb/{name}/jobs`: how far work is, as it stands or as it goes on, and stopping it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Literal

import anyio
from fastapi import APIRouter, Depends, Query, Response
from fastapi import Path as PathParameter
from starlette.responses import StreamingResponse

from glm_rag_server.context import ServerContext
from glm_rag_server.described import JOBS, errors
from glm_rag_server.errors import ApiError, Hide
from glm_rag_server.kb import schemas, views
from glm_rag_server.kb.job import Job
from glm_rag_server.kb.state import READ, WRITE, Context, Name, TheState, not_found

router = APIRouter(prefix="/kb", tags=[JOBS], responses=errors(400, 404, 503))

_LOOK_SECONDS = 0.05
_TELL_SECONDS = 0.5
_ALIVE_SECONDS = 15.0

Wait = Annotated[
    float,
    Query(ge=0, le=60, description="seconds to wait for the end: 200 if it came, else 202"),
]


def known_job(
    name: Name,
    state: TheState,
    job_id: Annotated[str, PathParameter(max_length=100)],
) -> Job:
    """The job of the address.

    Raises:
        ApiError: 404.
    """
    found = state.jobs.get(name, job_id)
    if found is None:
        message = f"there is no job {job_id!r} of {name!r}: it may be long over"
        raise ApiError(404, message, code="job_not_found")
    return found


KnownJob = Annotated[Job, Depends(known_job)]


@router.get(
    "/{name}/jobs",
    summary="List the jobs of a knowledge base",
    response_description="those that are remembered, newest first",
    dependencies=[READ],
)
def list_jobs(name: Name, context: Context, state: TheState) -> schemas.JobList:
    """Old ones are forgotten, and all of them when the server ends."""
    found = state.jobs.of(name)
    if not found and name not in context.models.knowledge_bases():
        raise not_found(name)
    return schemas.JobList(jobs=[views.job(job, context.hide) for job in found])


@router.get(
    "/{name}/jobs/{job_id}",
    summary="Show a job",
    response_description="the job as it stands",
    dependencies=[READ],
)
def show_job(job: KnownJob, context: Context) -> schemas.Job:
    """How far it is, or what came of it."""
    return views.job(job, context.hide)


@router.delete(
    "/{name}/jobs/{job_id}",
    summary="Stop a job",
    response_description="the job, which may still be stopping",
    dependencies=[WRITE],
)
def stop_job(job: KnownJob, context: Context, state: TheState) -> schemas.Job:
    """After the piece at hand; what is finished stays. One that is over stays as it is."""
    if not job.is_over:
        state.jobs.stop(job)
    return views.job(job, context.hide)


@router.get(
    "/{name}/jobs/{job_id}/events",
    summary="Follow a job",
    response_description="its state as server-sent events, until it is over",
    dependencies=[READ],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def follow_job(job: KnownJob, context: Context) -> StreamingResponse:
    """`progress` as it goes on, `end` with what came of it.

    The data of `end` is the job as `GET .../jobs/{job_id}` gives it; `progress` lacks its `files`
    and `result`.
    """
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    stream = events(job, context)
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def events(job: Job, context: ServerContext) -> AsyncIterator[str]:
    """The state of a job whenever it has changed, at most twice a second, until it is over."""
    told, told_at = -1, time.monotonic()
    while not job.is_over and not context.closing.is_set():
        now = time.monotonic()
        if job.changes != told and now - told_at >= (_TELL_SECONDS if told >= 0 else 0):
            told, told_at = job.changes, now
            yield _event("progress", job, context.hide)
        elif now - told_at >= _ALIVE_SECONDS:
            told_at = now
            yield ": still there\n\n"
        await anyio.sleep(_LOOK_SECONDS)
    if job.is_over:
        yield _event("end", job, context.hide)


def _event(kind: Literal["progress", "end"], job: Job, hide: Hide) -> str:
    left_out = {"files", "result"} if kind == "progress" else None
    return f"event: {kind}\ndata: {views.job(job, hide).model_dump_json(exclude=left_out)}\n\n"


async def answer(job: Job, wait: float, context: ServerContext, response: Response) -> schemas.Job:
    """A job that was begun: 202 with where it is found, or 200 if it is over within `wait` s."""
    end = time.monotonic() + wait
    while not job.is_over and time.monotonic() < end and not context.closing.is_set():
        await anyio.sleep(_LOOK_SECONDS)
    response.status_code = 200 if job.is_over else 202
    return views.job(job, context.hide)
