"""`GET /v1/models`: what has a name here."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request

from glm_rag.errors import GlmRagError, KnowledgeBaseError
from glm_rag_server.auth import require
from glm_rag_server.context import KB_PREFIX, ServerContext, context_of, public_name
from glm_rag_server.described import OPENAI, errors
from glm_rag_server.errors import ApiError
from glm_rag_server.keys import Key
from glm_rag_server.openai_responses import ModelBody, ModelList

router = APIRouter(prefix="/v1", tags=[OPENAI], responses=errors())
_ASK_SECONDS = 10.0
Reader = Annotated[Key, Depends(require("read"))]


@router.head("/models", include_in_schema=False)
@router.get(
    "/models",
    response_model=ModelList,
    response_model_exclude_none=True,
    summary="List models and knowledge bases",
    response_description="everything that `model` may say",
)
async def list_models(request: Request, _key: Reader) -> dict[str, Any]:
    """Language models, the embedder, and every knowledge base as `kb:NAME`."""
    context = context_of(request)
    found = await _plain(context)
    # A store that is down keeps nobody from asking the model; `/kb` says what is wrong with it.
    with suppress(KnowledgeBaseError, TimeoutError):
        async with asyncio.timeout(_ASK_SECONDS):
            found += await _bases(context)
    return {"object": "list", "data": found}


@router.get(
    "/models/{name:path}",
    response_model=ModelBody,
    response_model_exclude_none=True,
    summary="Show one model or knowledge base",
    response_description="what is known of it",
    responses=errors(404, 503),
)
async def get_model(name: str, request: Request, _key: Reader) -> dict[str, Any]:
    """One of those that the list has."""
    context = context_of(request)
    of_store = name.startswith(KB_PREFIX)
    for body in await (_bases if of_store else _plain)(context):
        if body["id"] == name:
            return body
    message = "no such model: see /v1/models"
    raise ApiError(404, message, param="model", code="model_not_found")


async def _plain(context: ServerContext) -> list[dict[str, Any]]:
    models = context.models
    windows = [await _window(context, name) for name in models.names]
    return [
        *map(partial(_body, "chat"), models.names, windows),
        _body("embedding", public_name(models.embeddings().name)),
    ]


async def _bases(context: ServerContext) -> list[dict[str, Any]]:
    models = context.models
    names = await context.outside.ask("store", models.knowledge_bases)
    window = await _window(context, models.name) if names else None
    return [_body("knowledge_base", KB_PREFIX + name, window) for name in names]


async def _window(context: ServerContext, name: str) -> int | None:
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            return await context.outside.ask("model", context.models.context_window, name)
    except (GlmRagError, TimeoutError):  # the list is of use without it
        return None


def _body(kind: str, name: str, window: int | None = None) -> dict[str, Any]:
    # When something was made is not known of everything: OpenAI's clients want a number.
    body = {"id": name, "object": "model", "created": 0, "owned_by": "glm-rag", "kind": kind}
    return body if window is None else {**body, "max_model_len": window}
