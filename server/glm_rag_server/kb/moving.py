"""`/kb/{name}/export`, `/kb/import` and `/kb/{name}/copy`: whole knowledge bases on the move."""

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
from glm_rag.types import KnowledgeBaseInfo
from glm_rag_server.described import BASES, errors
from glm_rag_server.errors import ApiError
from glm_rag_server.kb import requests, schemas, views
from glm_rag_server.kb.job import Job
from glm_rag_server.kb.job_routes import Wait, answer
from glm_rag_server.kb.state import ADMIN, Admin, Context, Opened, TheState, taken
from glm_rag_server.kb.work import copying

router = APIRouter(prefix="/kb", tags=[BASES], responses=errors(400, 409))

_BLOCK = 1 << 20
_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get(
    "/{name}/export",
    summary="Get a knowledge base as one file",
    response_description="the file",
    dependencies=[ADMIN],
    response_class=StreamingResponse,
    responses={**errors(404), 200: {"content": _FILE["requestBody"]["content"]}},
)
def export(kb: Opened, context: Context) -> StreamingResponse:
    """As it is at this moment, whoever writes to it. Another server makes one from it."""
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


@router.post(
    "/import",
    status_code=201,
    summary="Make a knowledge base from an export",
    response_description="made; its totals",
    responses=errors(408, 413),
    openapi_extra=_FILE,
    dependencies=[ADMIN],
)
async def import_knowledge_base(
    request: Request,
    context: Context,
    name: Annotated[
        requests.Text | None,
        Query(max_length=200, description="default: the name it was exported under"),
    ] = None,
) -> schemas.KnowledgeBase:
    """It appears when everything in the file was checked and found right."""
    settings = context.settings
    folder = await to_thread.run_sync(_folder, settings.home)
    incoming = await to_thread.run_sync(IncomingFile, folder)
    try:
        async for data in request.stream():
            await to_thread.run_sync(incoming.write, data)
        await to_thread.run_sync(incoming.finish)
        info = await to_thread.run_sync(_imported, incoming.path, name, settings)
    except ClientDisconnect as error:
        raise ApiError(400, "the upload broke off: send it again") from error
    finally:
        incoming.discard()
    return views.knowledge_base(info, context.hide)


def _imported(file: Path, name: str | None, settings: Settings) -> KnowledgeBaseInfo:
    if name is not None and folder_of(name, settings.home).name in list_knowledge_bases(settings):
        raise taken(name)
    with into_store(settings) as (home, finish):
        try:
            report = transfer.import_file(file, home, name=name)
        except KnowledgeBaseError as error:
            message = str(error).replace(str(file), "the file").replace(file.name, "FILE")
            raise ApiError(400, message, code="unreadable_export") from error
        finish(report.name)
    return info_or_error(settings, report.name)


def _folder(home: Path) -> Path:
    """For files that come and go; no knowledge base can have its name."""
    folder = home / "uploads" / ".transfers"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    return folder


# ---------------------------------------------------------------- under another name


@router.post(
    "/{name}/copy",
    status_code=202,
    summary="Copy a knowledge base under another name",
    response_description="the job: not over yet (202), or over (200)",
    responses=errors(404, 408, 413),
)
async def copy_knowledge_base(
    key: Admin,
    kb: Opened,
    wanted: requests.CopyRequest,
    response: Response,
    context: Context,
    state: TheState,
    wait: Wait = 0,
) -> schemas.Job:
    """In the same store; nothing is embedded again, and in the end both are compared. Failures,
    calibration and the words of its prompts go along, uploads stay where they are. A copy that is
    stopped or fails leaves nothing.
    """
    settings = context.settings
    to = folder_of(wanted.to, settings.home).name
    if to in await to_thread.run_sync(context.models.knowledge_bases):
        raise taken(to, param="to")
    state.jobs.check(to)
    job = Job(kb.name, "copy", copying(settings, kb.name, to, state.jobs.barred), owner=key.id)
    state.jobs.submit(job)
    return await answer(job, wait, context, response)
