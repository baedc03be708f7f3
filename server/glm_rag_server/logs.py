"""One line of JSON for each request: who, what, how long, how many tokens, and no text.

The outermost middleware: it gives a request its id, answers what broke, and counts.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request

from glm_rag.errors import GlmRagError
from glm_rag_server.errors import as_api_error
from glm_rag_server.record import Record
from glm_rag_server.running import ClientGone

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from glm_rag_server.context import ServerContext

log = logging.getLogger("glm_rag_server")

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# What nginx calls a client who closed the connection; nobody gets to see it.
GONE = 499
# Asked every few seconds by machines.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


class RequestLog:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp, *, context: ServerContext) -> None:
        self.app = app
        self.context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request and write its line."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        asked = request.headers.get("x-request-id", "")
        record = Record(asked if _ID.fullmatch(asked) else uuid.uuid4().hex)
        request.state.record = record
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = record.id
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except ClientGone:
            status = GONE
        except Exception as error:  # noqa: BLE001 - whatever broke: the client gets an answer, the log a trace
            if isinstance(error, GlmRagError):  # of the gate, which stands before the routes
                request.state.error = error
            else:
                tell_fault(error, record, self.context)
            if not status:
                known = as_api_error(error, self.context.hide)
                await known.response()(scope, receive, watch)
        finally:
            self._note(request, record, status or GONE)

    def _note(self, request: Request, record: Record, status: int) -> None:
        route = route_of(request.scope)
        method = request.method if request.method in _METHODS else "other"
        seconds = time.monotonic() - record.began
        metrics = self.context.metrics
        metrics.requests.labels(route, method, str(status)).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        if status in {408, 413, 429}:
            reason = {408: "slow", 413: "large", 429: "queue"}[status]
            metrics.refused.labels(reason).inc()
        if record.kind:
            outcome = record.outcome or ("gone" if status == GONE else _outcome(status, record))
            metrics.answers.labels(record.kind, outcome).inc()
        level = logging.DEBUG if route in _QUIET and status < 400 else logging.INFO
        log.log(level, "request", extra={"fields": self._fields(request, record, status, seconds)})

    def _fields(
        self, request: Request, record: Record, status: int, seconds: float
    ) -> dict[str, Any]:
        key = getattr(request.state, "key", None)
        error = getattr(request.state, "error", None)
        fields: dict[str, Any] = {
            "id": record.id,
            "method": request.method,
            "route": route_of(request.scope),
            "status": status,
            "ms": round(seconds * 1000, 1),
            "key": key.name if key else "",
        }
        if error is not None:
            fields["code"] = as_api_error(error).body["error"]["code"]
        if isinstance(error, GlmRagError) and (places := self.context.hide.places_in(str(error))):
            fields |= {"error": type(error).__name__, "places": places}
        if record.kind:
            fields |= _answer_fields(record)
        if self.context.settings.server.log_content and record.question:
            fields |= {"question": record.question, "text": record.text}
        return fields


def tell_fault(error: Exception, record: Record, context: ServerContext) -> None:
    """Log where something broke. The error's own words may hold text of documents."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    fields: dict[str, Any] = {"id": record.id, "error": type(error).__name__, "where": where}
    if context.settings.server.log_content:
        fields["text"] = str(error)
    log.error("a request failed", extra={"fields": fields})


def _outcome(status: int, record: Record) -> str:
    if status >= 400:
        return "refused" if status < 500 else "failed"
    return "abstained" if record.abstained else "answered"


def _answer_fields(record: Record) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": record.model, "finish_reason": record.finish_reason}
    if record.waited is not None:
        fields["waited_ms"] = round(record.waited * 1000, 1)
    if record.first_token is not None and record.placed is not None:
        fields["first_token_ms"] = round((record.first_token - record.placed) * 1000, 1)
    if record.usage is not None:
        fields["prompt_tokens"] = record.usage.input_tokens
        fields["cached_tokens"] = record.usage.cached_tokens
        fields["generated_tokens"] = record.usage.output_tokens
    if record.abstained is not None:
        fields |= {"abstained": record.abstained, "citations": record.num_citations}
    if record.outcome:
        fields["outcome"] = record.outcome
    return fields


def route_of(scope: Scope) -> str:
    """The route's pattern, so that figures and logs hold no names from outside."""
    path = getattr(scope.get("route"), "path", None)
    return str(path) if path else "(none)"


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level and message, and the `fields` of the record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line, ensure_ascii=False)


def configure(level: int = logging.INFO) -> None:
    """Write this server's lines, and those of the HTTP server below it, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, least in (("glm_rag_server", level), ("uvicorn", max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(least)
        logger.propagate = False
