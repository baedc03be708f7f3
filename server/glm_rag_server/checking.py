"""Settings that can never work, found before the server starts and not at the first question.

What may come right while it runs (a model that is pulled, a Milvus that is started) is left to
`/readyz`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from glm_rag.build import build_llm
from glm_rag.errors import ConfigError
from glm_rag.models.registry import MODELS, unknown_model
from glm_rag.settings import Settings, expand_user
from glm_rag.stores import milvus_location


def check(settings: Settings) -> None:
    """Make sure that the server could work. Loads and asks nothing.

    Raises:
        ConfigError: a setting is wrong, whatever happens later.
        MissingDependencyError: it needs a package that is not installed.
    """
    if settings.store.backend == "milvus":
        milvus_location(settings).check()
    build_llm(settings)
    _check_models(settings)
    _check_endpoint(settings.server.otlp_endpoint)


def absent_folders(settings: Settings) -> list[Path]:
    """Of `server.allowed_folders` those that are not there; a disk may be mounted later."""
    return [folder for folder in settings.server.allowed_folders if not folder.is_dir()]


def _check_models(settings: Settings) -> None:
    named = dict.fromkeys(settings.server.models, "server.models")
    if settings.llm.backend == "chatglm2":
        named.setdefault(settings.model.name, "model.name")
    for name, where in named.items():
        path = expand_user(name)
        # One that is known may be pulled, and a folder be mounted.
        could_be = name in MODELS or len(path.parts) > 1
        if not could_be and not path.is_dir() and not (settings.models_dir / name).is_dir():
            raise ConfigError(f"{where}: {unknown_model(name)} (or name a checkpoint folder)")


def _check_endpoint(address: str) -> None:
    if not address:
        return
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(
            f"server.otlp_endpoint {address!r} is no address of a collector: write it like "
            "http://127.0.0.1:4318"
        )
