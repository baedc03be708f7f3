"""One answer from request to response: the line, the pieces, the record of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from starlette.responses import JSONResponse, Response

from glm_rag.errors import GlmRagError
from glm_rag_server.context import context_of
from glm_rag_server.errors import ApiError, as_api_error
from glm_rag_server.logs import tell_fault
from glm_rag_server.pieces import End, Piece
from glm_rag_server.record import record_of
from glm_rag_server.running import Alive, Began, Queued, in_line, unless_gone
from glm_rag_server.sse import DONE, EventStream, comment, event
from glm_rag_server.telemetry import traced

if TYPE_CHECKING:
    from starlette.requests import Request

    from glm_rag_server.keys import Key

News = Queued | Alive | Piece


class Form(Protocol):
    """How an answer looks to clients."""

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first text."""
        ...

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """A piece; the last one carries how it ended."""
        ...

    def usage_chunk(self, end: End) -> dict[str, Any]:
        """The token counts, behind everything."""
        ...

    def whole(self, pieces: Sequence[Piece], end: End) -> dict[str, Any]:
        """The answer in one piece."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """An answer to be made.

    Attributes:
        kind: `chat`, `knowledge_base` or `completion`. model: as the client named it.
        make: the pieces, for the thread that computes them.
        question: for the log, where it may hold text.
    """

    kind: str
    model: str
    make: Callable[[], Generator[Piece, None, None]]
    form: Form
    question: str = ""
    stream: bool = False
    wants_usage: bool = False


async def respond(request: Request, key: Key, job: Job) -> Response:
    """Wait for a place, answer, and tell the client as it asked to be told.

    Raises:
        ApiError: before anything was sent. Afterwards errors are events of the stream.
        ClientGone: the client left.
    """
    record = record_of(request)
    record.kind, record.model, record.question = job.kind, job.model, job.question
    news = follow(request, key, job)
    if not job.stream:
        return JSONResponse(job.form.whole(*await unless_gone(request, _collect(news))))
    first = await unless_gone(request, _next(news))
    headers = {"x-queue-ahead": str(first.ahead)} if isinstance(first, Queued) else None
    return EventStream(_events(request, job, first, news), headers)


async def follow(request: Request, key: Key, job: Job) -> AsyncGenerator[News, None]:
    """The pieces of an answer and news from the line; keeps the record."""
    context, record = context_of(request), record_of(request)
    make = traced(context, request, job)
    stream = in_line(context.line, key.id, context.threads, make)
    keeps_text = context.settings.server.log_content
    try:
        async for item in stream:
            if isinstance(item, Began):
                record.got_place(item.waited, context.metrics)
                continue
            if isinstance(item, Piece):
                if item.text:
                    record.got_text()
                if keeps_text:
                    record.text += item.text
                if item.end is not None:
                    record.got_end(item.end, context.metrics)
            yield item
    finally:
        await stream.aclose()


async def _next(news: AsyncGenerator[News, None]) -> News:
    return await anext(news)


async def _collect(news: AsyncGenerator[News, None]) -> tuple[list[Piece], End]:
    try:
        pieces = [item async for item in news if isinstance(item, Piece)]
    finally:
        await news.aclose()
    end = pieces[-1].end if pieces else None
    if end is None:
        raise RuntimeError("an answer always has an end")
    return pieces, end


async def _events(
    request: Request, job: Job, first: News, news: AsyncGenerator[News, None]
) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events."""
    form, opened = job.form, False
    try:
        async for item in _with_first(first, news):
            if not isinstance(item, Piece):
                yield comment(f"queued {item.ahead} ahead" if isinstance(item, Queued) else "alive")
                continue
            if not opened:
                opened = True
                for chunk in form.opening():
                    yield event(chunk)
            if item.text or item.marks or item.reason or item.end:
                yield event(form.chunk(item))
            if item.end is not None and job.wants_usage:
                yield event(form.usage_chunk(item.end))
    except Exception as error:  # noqa: BLE001 - the status is sent: the client learns of it here
        yield event(_failed(request, error).body)
        return
    finally:
        await news.aclose()
    yield DONE


async def _with_first(first: News, news: AsyncGenerator[News, None]) -> AsyncGenerator[News, None]:
    yield first
    async for item in news:
        yield item


def _failed(request: Request, error: Exception) -> ApiError:
    context, record = context_of(request), record_of(request)
    known = as_api_error(error, context.hide)
    record.outcome = "failed" if known.status >= 500 else "refused"
    request.state.error = error
    if not isinstance(error, ApiError | GlmRagError):
        tell_fault(error, record, context)
    return known
