"""The application: routes, and what stands before them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from glm_rag._version import __version__
from glm_rag.settings import Settings
from glm_rag_server import (
    chat,
    completions,
    described,
    docs_page,
    embeddings,
    errors,
    health,
    models,
)
from glm_rag_server.auth import Gate
from glm_rag_server.context import Models, ServerContext
from glm_rag_server.kb.routes import router as kb_router
from glm_rag_server.keys import KeyStore
from glm_rag_server.limits import Limits
from glm_rag_server.logs import RequestLog

_PARTS = (chat, completions, embeddings, models, health, docs_page)


def create_app(
    settings: Settings, keys: KeyStore | None = None, *, models: Models | None = None
) -> FastAPI:
    """The HTTP API of these settings.

    Args:
        keys: default: those of the data folder.
        models: what answers, for tests.

    Raises:
        GlmRagError: the settings cannot be served.
    """
    context = ServerContext.build(settings, keys, models)
    app = FastAPI(
        title="glm-rag",
        version=__version__,
        description="OpenAI's API on your own machine, with knowledge bases.",
        openapi_tags=described.groups(),
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.context = context
    errors.install(app, context.hide)
    for part in _PARTS:
        app.include_router(part.router)
    app.include_router(kb_router)
    app.openapi = partial(docs_page.describe, app)  # type: ignore[method-assign]
    origins = settings.server.allowed_origins
    # The last one added is the outermost.
    app.add_middleware(Limits, settings=settings.server)
    app.add_middleware(Gate, keys=context.keys, origins=origins)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["*"],
            # Clients name headers of their own there, as OpenAI's does (x-stainless-...).
            allow_headers=["*"],
            expose_headers=["x-request-id", "x-queue-ahead", "retry-after"],
        )
    app.add_middleware(RequestLog, context=context)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """The end: threads come to theirs, knowledge bases are closed, spans are sent."""
    yield
    context: ServerContext = app.state.context
    context.stop()
    await asyncio.to_thread(context.close)
