"""`POST /kb/{name}/documents` and `ingest`: files into a knowledge base."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from glm_rag.errors import ConfigError, DocumentError, KnowledgeBaseError
from glm_rag.knowledge.uploads import sweep, uploads_folder, uploads_of
from glm_rag_ingest.pipeline import IngestOptions
from glm_rag_ingest.places import allowed_path
from glm_rag_ingest.selection import Selection
from glm_rag_server.context import ServerContext
from glm_rag_server.described import DOCUMENTS, errors
from glm_rag_server.errors import ApiError
from glm_rag_server.kb import requests, schemas
from glm_rag_server.kb.job import Job, SentFile
from glm_rag_server.kb.job_routes import Wait, answer
from glm_rag_server.kb.receiving import receive
from glm_rag_server.kb.state import Context, Opened, TheState, Writer, not_found
from glm_rag_server.kb.work import ingesting

router = APIRouter(prefix="/kb", tags=[DOCUMENTS], responses=errors(400, 404, 408, 409, 413))

_JOB = "the job: not over yet (202), or over (200)"
_EVERYTHING = requests.IngestRequest()  # without a body

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            }
        },
    }
}


@router.post(
    "/{name}/documents",
    status_code=202,
    summary="Upload documents and have them read",
    response_description=_JOB,
    responses=errors(415, 507),
    openapi_extra=_FORM,
)
async def upload_documents(
    key: Writer,
    kb: Opened,
    request: Request,
    response: Response,
    context: Context,
    state: TheState,
    wait: Wait = 0,
) -> schemas.Job:
    """The job tells how far they are read. A file of a name that was uploaded before replaces it;
    what has not changed is skipped. Files of one name in the same request get numbers.
    """
    name, home = kb.name, context.settings.home
    state.jobs.check(name)
    with _disk_errors():
        folder = await to_thread.run_sync(_folder, name, home)
        files = await receive(request, folder)
    paths = [path for _, path in files]
    await to_thread.run_sync(_check_still_there, context, name, paths)
    job = Job(
        name,
        "ingest",
        ingesting(context.settings, name, paths, IngestOptions()),
        owner=key.id,
        files=[SentFile(sent, path.resolve().as_uri()) for sent, path in files],
    )
    state.jobs.submit(job)
    return await answer(job, wait, context, response)


def _folder(name: str, home: Path) -> Path:
    folder = uploads_folder(name, home)
    sweep(folder)
    return folder


def _check_still_there(context: ServerContext, name: str, paths: Sequence[Path]) -> None:
    """An upload may take an hour, and somebody may have deleted the knowledge base meanwhile."""
    if name in context.models.knowledge_bases():
        return
    for path in paths:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        paths[0].parent.rmdir()
    raise not_found(name)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:  # the folder was deleted with its knowledge base
        raise ApiError(409, "the knowledge base was deleted meanwhile") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ApiError(507, "the server's disk is full: ask for space") from error
        raise KnowledgeBaseError(f"cannot keep uploads: {error.strerror}") from error


@router.post(
    "/{name}/ingest",
    status_code=202,
    summary="Read files of the server, or all uploads again",
    response_description=_JOB,
)
async def ingest(
    key: Writer,
    kb: Opened,
    response: Response,
    context: Context,
    state: TheState,
    wanted: requests.IngestRequest = _EVERYTHING,
    wait: Wait = 0,
) -> schemas.Job:
    """Files and folders inside `server.allowed_folders`; without `paths` everything that was
    uploaded, as after a stop.
    """
    options = _options(wanted)
    paths, within = await to_thread.run_sync(_places, kb.name, wanted.paths, context)
    work = ingesting(context.settings, kb.name, paths, replace(options, within=within))
    job = Job(kb.name, "ingest", work, owner=key.id)
    state.jobs.submit(job)
    return await answer(job, wait, context, response)


def _options(wanted: requests.IngestRequest) -> IngestOptions:
    include, exclude = tuple(wanted.include), tuple(wanted.exclude)
    Selection.of(include, exclude)  # now, not in the job
    return IngestOptions(
        prune=wanted.prune,
        dry_run=wanted.dry_run,
        include=include,
        exclude=exclude,
        retry_failed=wanted.retry_failed,
    )


def _places(
    name: str, paths: Sequence[str], context: ServerContext
) -> tuple[list[Path], tuple[Path, ...]]:
    """What shall be read, and the folders in which it must really lie."""
    home, allowed = context.settings.home, context.settings.server.allowed_folders
    if not paths:
        folders = uploads_of(name, home)
        if not folders:
            raise ApiError(400, "nothing was uploaded yet: name paths", param="paths")
        return folders, tuple(folders)
    try:
        return [allowed_path(path, allowed) for path in paths], allowed
    except (ConfigError, DocumentError) as error:  # about what was sent: nothing to hide
        raise ApiError(400, str(error), param="paths") from error
