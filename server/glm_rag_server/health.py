"""For machines that watch: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from glm_rag.errors import GlmRagError
from glm_rag_server.auth import require
from glm_rag_server.context import ServerContext, context_of
from glm_rag_server.described import OPERATION, errors
from glm_rag_server.errors import as_api_error
from glm_rag_server.keys import Key
from glm_rag_server.outside import Where

router = APIRouter(tags=[OPERATION])
_LOOK_SECONDS = 10.0
log = logging.getLogger("glm_rag_server")


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Tell whether the server lives", response_description="it does")
async def healthz() -> dict[str, str]:
    """It does, if this comes."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    summary="Tell whether it can answer",
    response_description="it can",
    responses={503: {"description": "it cannot; `checks` says why"}},
)
async def readyz(request: Request) -> Response:
    """Whether the model and the knowledge bases are there and the server is not ending. `checks`
    says of each `ok` or what is wrong.
    """
    context = context_of(request)
    checks = {
        "model": await _look(context, "model", context.models.check_model),
        "store": await _look(context, "store", context.models.knowledge_bases),
        "server": "ending" if context.closing.is_set() else "ok",
    }
    ready = set(checks.values()) == {"ok"}
    body = {"status": "ready" if ready else "not ready", "checks": checks}
    return JSONResponse(body, 200 if ready else 503)


@router.get(
    "/metrics",
    summary="Give the figures that Prometheus collects",
    response_class=Response,
    response_description="all figures, in Prometheus' text format",
    responses=errors(),
)
async def metrics(request: Request, _key: Annotated[Key, Depends(require("read"))]) -> Response:
    """As text. Needs a key with the scope `read` where the server has keys."""
    return Response(context_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


async def _look(context: ServerContext, name: Where, call: Callable[[], object]) -> str:
    """What a client is told; the log has the whole of it, once for each that is new."""
    told = whole = "ok"
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await context.outside.ask(name, call)
    except GlmRagError as error:
        told, whole = as_api_error(error, context.hide).message, as_api_error(error).message
    except TimeoutError:
        told = whole = f"no answer within {_LOOK_SECONDS:g} s"
    if context.looks.get(name, "ok") != whole:
        context.looks[name] = whole
        log.warning("%s: %s", name, whole)
    return told
