"""Errors as every client of OpenAI's API reads them, whatever went wrong.

`{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}`
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from glm_rag.errors import (
    ConfigError,
    ContextWindowError,
    DocumentError,
    GlmRagError,
    KnowledgeBaseBusyError,
    KnowledgeBaseError,
    KnowledgeBaseNotFoundError,
    MissingDependencyError,
    ModelError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

log = logging.getLogger("glm_rag_server")

# What clients tell kinds of errors apart by.
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
# Which kind of ours is which status and code; the first that fits counts.
_KINDS: tuple[tuple[type[GlmRagError], int, str | None], ...] = (
    (ContextWindowError, 400, "context_length_exceeded"),
    (ConfigError, 400, None),
    (DocumentError, 400, "unreadable_document"),
    (KnowledgeBaseNotFoundError, 404, "knowledge_base_not_found"),
    (StoreUnavailableError, 503, "store_unavailable"),
    (KnowledgeBaseBusyError, 409, "knowledge_base_busy"),
    (KnowledgeBaseError, 409, "knowledge_base_error"),
    (ModelError, 503, "model_unavailable"),
    (MissingDependencyError, 503, "not_installed"),
)
Hide = Callable[[str], str]
_BODY_PARTS = frozenset({"body", "query", "path", "header", "form"})


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status. message: one line that says what to do.
        param: the field that is wrong. code: for programs.
        headers: to send along.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that clients read."""
        kind = _TYPES.get(self.status)
        if kind is None:
            kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """As a response."""
        return JSONResponse(self.body, self.status, self.headers)


def as_api_error(error: Exception, hide: Hide | None = None) -> ApiError:
    """Any exception as what the client is told.

    Args:
        hide: takes out of a message what is for the operator alone, see `hiding`.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors(), error.body)
    if isinstance(error, HTTPException):
        return _http(error)
    if isinstance(error, GlmRagError):
        message = " ".join(str(error).split())
        if hide is not None:
            message = hide(message)
        for kind, status, code in _KINDS:
            if isinstance(error, kind):
                headers = {"Retry-After": "5"} if status == 503 else None
                return ApiError(status, message, code=code, headers=headers)
        return ApiError(500, message)
    return ApiError(500, "the server failed; its log says where, under this request's id")


def install(app: FastAPI, hide: Hide) -> None:
    """Have every error of `app` answered in the one form."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        known = as_api_error(error, hide)
        request.state.error = error
        return known.response()

    for kind in (ApiError, GlmRagError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)


def _invalid(problems: Sequence[Mapping[str, Any]], body: Any) -> ApiError:
    """The problem that validation found deepest; what was sent is not repeated."""
    problem = max(problems, key=lambda one: (_param(one, body) or "").count("."))
    if problem["type"] == "json_invalid":
        return ApiError(400, "the body is no valid JSON", code="invalid_json")
    if tuple(problem["loc"]) == ("body",):
        if problem["type"] == "missing":
            message = "the body is missing: send a JSON object, with Content-Type: application/json"
            return ApiError(400, message, code="invalid_json")
        if problem["type"] == "model_attributes_type":
            message = "the body is no JSON object: send one, with Content-Type: application/json"
            return ApiError(400, message, code="invalid_json")
    param = _param(problem, body)
    # One for each form that a field may have; what has one of them is told of that.
    same = [one for one in problems if _param(one, body) == param]
    same = [one for one in same if not one["type"].endswith("_type")] or same
    text = ", or: ".join(dict.fromkeys(map(_said, same)))
    return ApiError(400, f"{param}: {text}" if param else text, param=param)


def _said(problem: Mapping[str, Any]) -> str:
    return str(problem["msg"]).removeprefix("Value error, ")


def _param(problem: Mapping[str, Any], body: Any) -> str | None:
    """The field that is wrong: of the way to it, what stands in the request.

    Between these pydantic names the forms that it tried, as `list[str]`.
    """
    first, *way = problem["loc"] or ("body",)
    if first not in _BODY_PARTS:
        way = [first, *way]
    if first != "body" or body is None:
        return ".".join(map(str, way)) or None
    where, value = [], body
    for part in way:
        is_item = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if is_item or (isinstance(value, Mapping) and part in value):
            value = value[part]
            where.append(str(part))
    if problem["type"] == "missing":
        where.append(str(way[-1]))
    return ".".join(where) or None


def _http(error: HTTPException) -> ApiError:
    status = error.status_code
    message = str(error.detail)
    if status == HTTPStatus.NOT_FOUND and message == "Not Found":
        message = "no such address: see /docs for those there are"
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        message = "this address does not take this method: see /docs"
    elif status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    return ApiError(int(status), message, headers=error.headers)
