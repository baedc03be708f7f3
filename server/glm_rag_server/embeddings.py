"""`POST /v1/embeddings`: texts as vectors."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from glm_rag.embeddings import TokenEmbeddings
from glm_rag_server.auth import require
from glm_rag_server.context import context_of, public_name
from glm_rag_server.described import OPENAI, errors
from glm_rag_server.errors import ApiError
from glm_rag_server.keys import Key
from glm_rag_server.openai_requests import EmbeddingRequest
from glm_rag_server.openai_responses import EmbeddingList
from glm_rag_server.running import in_place, unless_gone

router = APIRouter(prefix="/v1", tags=[OPENAI], responses=errors(400, 404, 408, 413, 429, 503))


@router.post(
    "/embeddings",
    response_model=EmbeddingList,
    summary="Turn texts into vectors",
    response_description="a vector for each text, in their order",
)
async def embeddings(
    body: EmbeddingRequest, request: Request, key: Annotated[Key, Depends(require("read"))]
) -> Response:
    """By the embedder of the knowledge bases. Vectors have length 1; of a text that is longer than
    the embedder reads, the head counts.
    """
    context = context_of(request)
    embedder = context.models.embeddings()
    if body.model != public_name(embedder.name):
        message = f"unknown embedding model: there is {public_name(embedder.name)}"
        raise ApiError(404, message, param="model", code="model_not_found")
    texts = body.texts()
    work = in_place(
        context.small_line, key.id, context.threads, lambda: _embed(embedder, texts, body)
    )
    return JSONResponse(await unless_gone(request, work))


def _embed(embedder: TokenEmbeddings, texts: list[str], body: EmbeddingRequest) -> dict[str, Any]:
    if body.dimensions not in (None, embedder.dimension):
        message = f"vectors have {embedder.dimension} numbers: leave `dimensions` out"
        raise ApiError(400, message, param="dimensions", code="unsupported")
    if body.input_type == "query":
        vectors = [embedder.embed_query(text) for text in texts]
    else:
        vectors = embedder.embed_documents(texts)
    tokens = sum(min(embedder.count_tokens(text), embedder.max_tokens) for text in texts)
    return {
        "object": "list",
        "model": body.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": _packed(vector, body)}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _packed(vector: list[float], body: EmbeddingRequest) -> list[float] | str:
    if body.encoding_format != "base64":
        return vector
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode("ascii")
