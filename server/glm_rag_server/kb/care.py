"""`/kb/{name}/verify`, `rebuild`, `export` and `/kb/import`: the care of knowledge bases."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from glm_rag.build import info_or_error, list_knowledge_bases
from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import transfer
from glm_rag.knowledge.naming import folder_of
from glm_rag.knowledge.uploads import IncomingFile, sweep
from glm_rag.settings import Settings
from glm_rag.stores import in_data_folder, into_store
from glm_rag_server.errors import ApiError
from glm_rag_server.kb import requests, schemas, views
from glm_rag_server.kb.job import Job
from glm_rag_server.kb.job_routes import Wait, answer
from glm_rag_server.kb.state import (
    ADMIN,
    READ,
    Admin,
    Context,
    Opened,
    TheState,
    Writer,
    taken,
)
from glm_rag_server.kb.work import rebuilding, verifying

router = APIRouter(prefix="/kb")

_BLOCK = 1 << 20
_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/{name}/verify", status_code=202)
async def verify(
    key: Writer, kb: Opened, response: Response, context: Context, state: TheState, wait: Wait = 0
) -> schemas.Job:
    """Check everything against the stored texts; nothing is changed. No finding is expected."""
    job = Job(kb.name, "verify", verifying(context.settings, kb.name), owner=key.id)
    state.jobs.submit(job)
    return await answer(job, wait, context, response)


@router.post("/{name}/verify/citations", dependencies=[READ])
def verify_citations(kb: Opened, wanted: requests.CitationsRequest) -> schemas.CitationsChecked:
    """Check that the citations of earlier answers still open to their quotes."""
    found = kb.verify_citations([citation.model_dump() for citation in wanted.citations])
    return schemas.CitationsChecked(
        num_citations=len(wanted.citations),
        findings=[schemas.Finding.model_validate(finding) for finding in found],
    )


@router.post("/{name}/rebuild", status_code=202)
async def rebuild(
    key: Admin,
    kb: Opened,
    wanted: requests.RebuildRequest,
    response: Response,
    context: Context,
    state: TheState,
    wait: Wait = 0,
) -> schemas.Job:
    """Make keyword index, totals and vector index again; a stopped one leaves the old state."""
    work = rebuilding(context.settings, kb.name, embed=wanted.embed)
    job = Job(kb.name, "rebuild", work, owner=key.id)
    state.jobs.submit(job)
    return await answer(job, wait, context, response)


# ---------------------------------------------------------------- as one file


@router.get(
    "/{name}/export",
    dependencies=[ADMIN],
    response_class=StreamingResponse,
    responses={200: {"content": _FILE["requestBody"]["content"]}},
)
def export(kb: Opened, context: Context) -> StreamingResponse:
    """Get a knowledge base as one file, as it is at this moment, whoever writes to it."""
    file = _exported(kb.name, context.settings)
    size = os.fstat(file.fileno()).st_size
    name = quote(f"{kb.name}.kb")
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
    }
    return StreamingResponse(_blocks(file), media_type="application/octet-stream", headers=headers)


def _exported(name: str, settings: Settings) -> BinaryIO:
    """An open export that has no name any more, so that nothing is left of it."""
    target = _folder(settings.home) / f".{uuid.uuid4().hex}.part"
    try:
        with in_data_folder(settings, name) as home:
            transfer.export(name, home, target)
        return target.open("rb")
    finally:
        target.unlink(missing_ok=True)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while block := file.read(_BLOCK):
            yield block


@router.post("/import", status_code=201, openapi_extra=_FILE, dependencies=[ADMIN])
async def import_knowledge_base(
    request: Request,
    context: Context,
    name: Annotated[
        requests.Text | None,
        Query(max_length=200, description="default: the name it was exported under"),
    ] = None,
) -> schemas.KnowledgeBase:
    """Make a knowledge base from an export, after checking everything in it."""
    settings = context.settings
    folder = await to_thread.run_sync(_folder, settings.home)
    incoming = await to_thread.run_sync(IncomingFile, folder)
    try:
        async for data in request.stream():
            await to_thread.run_sync(incoming.write, data)
        await to_thread.run_sync(incoming.finish)
        return await to_thread.run_sync(_imported, incoming.path, name, settings)
    except ClientDisconnect as error:
        raise ApiError(400, "the upload broke off: send it again") from error
    finally:
        incoming.discard()


def _imported(file: Path, name: str | None, settings: Settings) -> schemas.KnowledgeBase:
    if name is not None and folder_of(name, settings.home).name in list_knowledge_bases(settings):
        raise taken(name)
    with into_store(settings) as (home, finish):
        try:
            report = transfer.import_file(file, home, name=name)
        except KnowledgeBaseError as error:
            message = str(error).replace(str(file), "the file").replace(file.name, "FILE")
            raise ApiError(400, message, code="unreadable_export") from error
        finish(report.name)
    return views.knowledge_base(info_or_error(settings, report.name), settings.home)


def _folder(home: Path) -> Path:
    """For files that come and go; no knowledge base can have its name."""
    folder = home / "uploads" / ".transfers"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    return folder
