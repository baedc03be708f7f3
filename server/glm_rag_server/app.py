"""The application: routes, and what stands before them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from fastapi import FastAPI

from glm_rag._version import __version__
from glm_rag.settings import Settings
from glm_rag_server import errors
from glm_rag_server.auth import Gate
from glm_rag_server.context import Models, ServerContext
from glm_rag_server.keys import KeyStore
from glm_rag_server.limits import Limits


def create_app(
    settings: Settings, keys: KeyStore | None = None, *, models: Models | None = None
) -> FastAPI:
    """The HTTP API of these settings.

    Args:
        keys: default: those of the data folder.
        models: what answers, for tests.
    """
    context = ServerContext.build(settings, keys, models)
    app = FastAPI(title="glm-rag", version=__version__, docs_url=None, redoc_url=None)
    app.state.context = context
    errors.install(app, settings.home)
    if find_spec("glm_rag_server.kb"):  # until its branch is merged
        app.include_router(import_module("glm_rag_server.kb.routes").router)
    app.add_middleware(Limits, settings=settings.server)
    app.add_middleware(Gate, keys=context.keys, origins=settings.server.allowed_origins)
    return app
