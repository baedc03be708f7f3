"""The page of all addresses at `/docs`: made of `/openapi.json`, and loads nothing from elsewhere.

Swagger UI would come from a CDN, or from packages that do not know OpenAPI 3.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

router = APIRouter(include_in_schema=False)
_FOLDER = Path(__file__).with_name("page")
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"


@router.get("/docs")
async def page() -> Response:
    """The page."""
    return _file("docs.html", "text/html")


@router.get("/docs.js")
async def script() -> Response:
    """What fills it."""
    return _file("docs.js", "text/javascript")


@router.get("/docs.css")
async def style() -> Response:
    """How it looks."""
    return _file("docs.css", "text/css")


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI of `app`. What FastAPI says of status 422 is left out: wrong fields are 400."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        operations = (one for path in schema["paths"].values() for one in path.values())
        for operation in operations:
            operation["responses"].pop("422", None)
        app.openapi_schema = schema
    return app.openapi_schema


def _file(name: str, kind: str) -> Response:
    headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}
    return Response((_FOLDER / name).read_bytes(), media_type=kind, headers=headers)
