"""`GET /v1/models`: what has a name here."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request

from glm_rag_server.auth import require
from glm_rag_server.context import KB_PREFIX, ServerContext, context_of, public_name
from glm_rag_server.errors import ApiError
from glm_rag_server.keys import Key
from glm_rag_server.openai_types import ERRORS, ModelBody, ModelList

router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERRORS)
Reader = Annotated[Key, Depends(require("read"))]


@router.get("/models", response_model=ModelList, summary="List models and knowledge bases")
async def list_models(request: Request, _key: Reader) -> dict[str, Any]:
    """Language models, the embedder, and every knowledge base as `kb:NAME`."""
    return {"object": "list", "data": await _all(context_of(request))}


@router.get("/models/{name:path}", response_model=ModelBody, summary="Look at one of them")
async def get_model(name: str, request: Request, _key: Reader) -> dict[str, Any]:
    """One of those that the list has."""
    for body in await _all(context_of(request)):
        if body["id"] == name:
            return body
    message = "no such model: see /v1/models"
    raise ApiError(404, message, param="model", code="model_not_found")


async def _all(context: ServerContext) -> list[dict[str, Any]]:
    models = context.models
    names = await asyncio.to_thread(models.knowledge_bases)
    return [
        *(_body(name, "chat") for name in models.names),
        _body(public_name(models.embeddings().name), "embedding"),
        *(_body(KB_PREFIX + name, "knowledge_base") for name in names),
    ]


def _body(name: str, kind: str) -> dict[str, Any]:
    # When something was made is not known of everything: OpenAI's clients want a number.
    return {"id": name, "object": "model", "created": 0, "owned_by": "glm-rag", "kind": kind}
