"""`POST /v1/completions`: the model goes on with a raw text."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from glm_rag_server.answering import Job, respond
from glm_rag_server.auth import require
from glm_rag_server.context import context_of
from glm_rag_server.described import OPENAI, errors
from glm_rag_server.keys import Key
from glm_rag_server.openai_requests import CompletionRequest, refuse_unsupported
from glm_rag_server.openai_responses import Completion
from glm_rag_server.pieces import End, Piece, completion_pieces
from glm_rag_server.shapes import finish_reason, usage_body

router = APIRouter(prefix="/v1", tags=[OPENAI], responses=errors(400, 404, 408, 413, 429, 503))


@router.post(
    "/completions",
    response_model=Completion,
    summary="Go on with a text",
    response_description="the continuation, whole or as a stream of chunks",
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def completions(
    body: CompletionRequest, request: Request, key: Annotated[Key, Depends(require("read"))]
) -> Response:
    """Without chat format, as for few-shot prompts and code. Several prompts take one place in the
    queue, one after another; each has a choice, whose `index` says which it is.
    """
    models = context_of(request).models
    refuse_unsupported(body)
    prompts, options = body.given(), body.sampling()
    llm = models.completion_llm(models.check(body.model))
    job = Job(
        kind="completion",
        model=body.model,
        make=partial(completion_pieces, llm, prompts, options),
        form=CompletionForm(body.model),
        question="\n".join(prompt for prompt in prompts if isinstance(prompt, str)),
        stream=bool(body.stream),
        wants_usage=body.wants_usage,
    )
    return await respond(request, key, job)


@dataclass
class CompletionForm:
    """A continuation as `text_completion`, whole or in chunks."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def opening(self) -> list[dict[str, Any]]:
        """Nothing stands before the text."""
        return []

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """A piece of one of the texts."""
        return self._body([_choice(piece.index, piece.text, piece.reason)])

    def usage_chunk(self, end: End) -> dict[str, Any]:
        """The counts, without a choice."""
        return {**self._body([]), "usage": usage_body(end.usage)}

    def whole(self, pieces: Sequence[Piece], end: End) -> dict[str, Any]:
        """Each text in one piece."""
        texts = groupby(pieces, attrgetter("index"))  # they come one after another
        choices = [_whole(index, list(parts)) for index, parts in texts]
        return {**self._body(choices), "usage": usage_body(end.usage)}

    def _body(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": None,
        }


def _whole(index: int, parts: Sequence[Piece]) -> dict[str, Any]:
    return _choice(index, "".join(piece.text for piece in parts), parts[-1].reason)


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    known = None if reason is None else finish_reason(reason)
    return {"index": index, "text": text, "logprobs": None, "finish_reason": known}
