"""What the routes of `/kb` share, and how they name a knowledge base."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

from anyio import to_thread
from fastapi import Depends, FastAPI, Path, Request

from glm_rag.errors import KnowledgeBaseNotFoundError
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.knowledge.naming import folder_of
from glm_rag_server.auth import require
from glm_rag_server.context import ServerContext, context_of
from glm_rag_server.errors import ApiError
from glm_rag_server.kb.jobs import Jobs
from glm_rag_server.keys import Key

_lock = threading.Lock()


@dataclass
class State:
    """Of one server: its jobs."""

    jobs: Jobs = field(default_factory=Jobs)


def state_of(request: Request) -> State:
    """The state of the server that got this request; a FastAPI dependency."""
    state = request.app.state
    with _lock:
        if not hasattr(state, "kb"):
            state.kb = State()
        found: State = state.kb
        return found


@asynccontextmanager
async def jobs_until_the_end(app: FastAPI) -> AsyncIterator[None]:
    """Lifespan: when the server ends, its jobs do, with what is finished in the store."""
    yield
    if hasattr(app.state, "kb"):
        await to_thread.run_sync(app.state.kb.jobs.close)


def name_of(
    name: Annotated[
        str, Path(description="of the knowledge base", max_length=200, examples=["handbook"])
    ],
    context: Annotated[ServerContext, Depends(context_of)],
) -> str:
    """The name as folders have it, whether there is one or not.

    Raises:
        ConfigError: it cannot name a knowledge base.
    """
    return folder_of(name, context.settings.home).name


def opened(
    name: Annotated[str, Depends(name_of)],
    context: Annotated[ServerContext, Depends(context_of)],
) -> KnowledgeBase:
    """The knowledge base of the address, shared by all; do not close it.

    Raises:
        ApiError: 404. KnowledgeBaseError: it cannot be opened.
    """
    try:
        return context.models.knowledge_base(name)
    except KnowledgeBaseNotFoundError as error:
        raise not_found(name) from error


def not_found(name: str) -> ApiError:
    """What is said where there is none of that name."""
    return ApiError(
        404,
        f"there is no knowledge base {name!r}: GET /kb lists those there are",
        code="knowledge_base_not_found",
    )


def taken(name: str, param: str = "name") -> ApiError:
    """What is said where there is one of that name."""
    return ApiError(
        409,
        f"there is a knowledge base {name!r} already: choose another name, or delete it first",
        param=param,
        code="knowledge_base_exists",
    )


Context = Annotated[ServerContext, Depends(context_of)]
TheState = Annotated[State, Depends(state_of)]
Name = Annotated[str, Depends(name_of)]
Opened = Annotated[KnowledgeBase, Depends(opened)]
Writer = Annotated[Key, Depends(require("write"))]
Admin = Annotated[Key, Depends(require("admin"))]

READ = Depends(require("read"))
WRITE = Depends(require("write"))
ADMIN = Depends(require("admin"))
