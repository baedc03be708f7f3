"""`POST /v1/chat/completions`: the model, or the model over a knowledge base."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from glm_rag_server.answering import Job, respond
from glm_rag_server.auth import require
from glm_rag_server.context import (
    KB_PREFIX,
    ServerContext,
    context_of,
    knowledge_base_or_404,
)
from glm_rag_server.described import OPENAI, errors
from glm_rag_server.errors import ApiError
from glm_rag_server.keys import Key
from glm_rag_server.openai_requests import ChatRequest, refuse_unsupported
from glm_rag_server.openai_responses import ChatCompletion
from glm_rag_server.pieces import End, Piece, answer_pieces, chat_pieces
from glm_rag_server.shapes import finish_reason, usage_body

router = APIRouter(prefix="/v1", tags=[OPENAI], responses=errors(400, 404, 408, 413, 429, 503))


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    summary="Answer a conversation",
    response_description="the answer, whole or as a stream of chunks",
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def chat_completions(
    body: ChatRequest, request: Request, key: Annotated[Key, Depends(require("read"))]
) -> Response:
    """From the model, or from a knowledge base where `model` is `kb:NAME` or `knowledge_base` says
    so. The response then has a field `glm_rag` with citations, passages, and whether it abstained.
    """
    return await respond(request, key, await plan(context_of(request), body, key))


async def plan(context: ServerContext, body: ChatRequest, key: Key) -> Job:
    """What is to be done for a request.

    Raises:
        ApiError: it cannot be done as asked.
    """
    refuse_unsupported(body)
    texts, options = body.texts(), body.sampling()
    kb_name, model = which(context, body)
    make: Callable[[], Generator[Piece, None, None]]
    if kb_name is None:
        kind, make = "chat", partial(chat_pieces, context.models.llm(model), texts, options)
    else:
        _check_question(body, texts)
        await context.outside.ask("store", knowledge_base_or_404, context, kb_name)
        open_ = partial(context.models.assistant, kb_name, model)
        kind = "knowledge_base"
        make = partial(
            answer_pieces, open_, kb_name, texts, options, context.memory, f"{key.id} {model}"
        )
    return Job(
        kind=kind,
        model=body.model,
        make=make,
        form=ChatForm(body.model, usage_null=body.wants_usage),
        question=texts[-1][1],
        stream=bool(body.stream),
        wants_usage=body.wants_usage,
    )


def which(context: ServerContext, body: ChatRequest) -> tuple[str | None, str]:
    """The knowledge base and the model that are to answer.

    Raises:
        ApiError: there is no such model, or two knowledge bases are named.
    """
    if not body.model.startswith(KB_PREFIX):
        return body.knowledge_base, context.models.check(body.model)
    named = body.model.removeprefix(KB_PREFIX)
    if body.knowledge_base not in (None, named):
        message = "`model` and `knowledge_base` name two knowledge bases: leave one out"
        raise ApiError(400, message, param="knowledge_base")
    return named, context.models.name


def _check_question(body: ChatRequest, texts: list[tuple[str, str]]) -> None:
    role, text = texts[-1]
    if role != "user" or not text.strip():
        message = "the last message must be the user's question"
        raise ApiError(400, message, param=f"messages.{len(body.messages) - 1}")


@dataclass
class ChatForm:
    """An answer as `chat.completion` and its chunks.

    Args:
        model: as the client named it.
        usage_null: chunks say `usage: null`, as they do where the last one has the counts.
    """

    model: str
    usage_null: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def opening(self) -> list[dict[str, Any]]:
        """The chunk that says who speaks."""
        return [self._chunk({"role": "assistant", "content": ""})]

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """A piece; citations come as they are found, all of them with the end."""
        delta = {"content": piece.text} if piece.text else {}
        if piece.end is None:
            return self._chunk(delta, marks=piece.marks)
        return self._chunk(delta, finish_reason(piece.end.finish_reason), piece.end.extension)

    def usage_chunk(self, end: End) -> dict[str, Any]:
        """The counts, without a choice."""
        return {
            **self._head("chat.completion.chunk"),
            "choices": [],
            "usage": usage_body(end.usage),
        }

    def whole(self, pieces: Sequence[Piece], end: End) -> dict[str, Any]:
        """The answer in one piece."""
        text = end.extension.get("text") or "".join(piece.text for piece in pieces)
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason(end.finish_reason),
        }
        body = {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage_body(end.usage),
        }
        return {**body, "glm_rag": end.extension} if end.extension else body

    def _chunk(
        self, delta: dict[str, Any], reason: str | None = None, marks: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        if self.usage_null:
            chunk["usage"] = None
        if marks:
            chunk["glm_rag"] = marks
        return chunk

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
        }
