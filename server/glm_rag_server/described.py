"""What the page of the API says of all addresses alike: their groups, and their errors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

OPENAI = "OpenAI"
BASES = "Knowledge bases"
DOCUMENTS = "Documents"
CARE = "Search and care"
JOBS = "Jobs"
OPERATION = "Operation"

# In the order in which the page shows them.
GROUPS = {
    OPENAI: "What clients of OpenAI's API call. A knowledge base is a model named `kb:NAME`.",
    BASES: "Which there are; making, renaming, copying, moving and deleting whole ones, and the "
    "words of their prompts.",
    DOCUMENTS: "What a knowledge base holds: uploading, reading, looking at and removing it.",
    CARE: "What a question finds and why; checking a knowledge base, making what is derived "
    "again, reading passages ahead.",
    JOBS: "What takes longer than a request: how far it is, and stopping it.",
    OPERATION: "For machines that watch the server. The first two need no key.",
}


class ErrorDetail(BaseModel):
    """What went wrong and what to do."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every error."""

    error: ErrorDetail


_DESCRIPTIONS = {
    400: "the request is wrong; `param` says where",
    401: "no key, or a wrong one",
    403: "the key may not do this",
    404: "there is no such thing",
    408: "the request arrived too slowly",
    409: "the knowledge base is being written, deleted or renamed, is damaged, or its name is "
    "taken; the message says which",
    413: "the request is too large",
    415: "the documents are not sent as a form",
    429: "everything is in use: wait `Retry-After` seconds",
    503: "the model is not here, the store does not answer, or the server is ending",
    507: "the server's disk is full",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses as FastAPI's `responses`; 401 and 403 are among them, whatever is asked."""
    # Where the state of a knowledge base can be in the way, its store can be, too.
    store = {503} if 409 in statuses else set()
    wanted = sorted({401, 403, *store, *statuses})
    return {one: {"model": ErrorBody, "description": _DESCRIPTIONS[one]} for one in wanted}


def groups() -> list[dict[str, Any]]:
    """The groups as OpenAPI lists them."""
    return [{"name": name, "description": text} for name, text in GROUPS.items()]
