"""`glm-rag serve` and `glm-rag keys`: the HTTP API and who may use it."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Annotated

import typer

from glm_rag.config import load_config
from glm_rag.errors import ConfigError, MissingDependencyError
from glm_rag.settings import Settings

_CONFIG = typer.Option("--config", help="YAML file with settings (see configs/).")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(serve)
    keys = typer.Typer(help="Make, list and revoke the keys of the HTTP API.", no_args_is_help=True)
    keys.command("create")(create)
    keys.command("list")(list_)
    keys.command("revoke")(revoke)
    app.add_typer(keys, name="keys")


def serve(
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; others than this need a key.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0: one that is free.")
    ] = 8000,
    config: Annotated[Path | None, _CONFIG] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Log health checks and scrapes, too.")
    ] = False,
) -> None:
    """Serve models and knowledge bases over HTTP, as OpenAI's API. Ctrl-C ends it.

    Existing clients work with base_url http://127.0.0.1:8000/v1; a knowledge base is the model
    kb:NAME. The page /docs lists everything.

    Examples:

      glm-rag serve

      glm-rag keys create laptop && glm-rag serve --host 0.0.0.0
    """
    settings = load_config(config)
    for package in ("fastapi", "uvicorn", "multipart", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError.for_extra(package, "server")
    from glm_rag_server.server import run

    run(settings, host, port, verbose=verbose)


def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for lists and logs.")],
    scope: Annotated[
        str,
        typer.Option("--scope", help="read: ask and search. write: change, too. admin: all."),
    ] = "read",
    config: Annotated[Path | None, _CONFIG] = None,
) -> None:
    """Make a key and print it. It is shown only now: what is stored cannot be turned back.

    From the first key on, the server asks every client for one.

    Examples:

      glm-rag keys create laptop

      glm-rag keys create ingest-job --scope write
    """
    from glm_rag_server.keys import SCOPES, KeyStore

    known = next((one for one in SCOPES if one == scope), None)
    if known is None:
        raise ConfigError(f"unknown scope {scope!r}: use {', '.join(SCOPES)}")
    store = KeyStore(_path(load_config(config)))
    typer.echo(store.create(name, known))
    typer.echo("Keep it now: it cannot be shown again.", err=True)


def list_(
    config: Annotated[Path | None, _CONFIG] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List all keys, without the secrets."""
    from dataclasses import asdict

    from glm_rag_server.keys import KeyStore

    keys = KeyStore(_path(load_config(config))).all()
    if as_json:
        typer.echo(json.dumps([asdict(key) for key in keys], ensure_ascii=False, indent=2))
        return
    if not keys:
        typer.echo("No keys: the server answers this computer only, and everybody on it.")
    for key in keys:
        state = f"revoked {_time(key.revoked)}" if key.revoked else f"used {_time(key.used)}"
        typer.echo(f"{key.id}  {key.scope:5}  {key.name}  made {_time(key.created)}, {state}")


def revoke(
    key: Annotated[str, typer.Argument(help="Name or id of the key.")],
    config: Annotated[Path | None, _CONFIG] = None,
) -> None:
    """Make a key useless, also for a server that is running."""
    from glm_rag_server.keys import KeyStore

    found = KeyStore(_path(load_config(config))).revoke(key)
    typer.echo(f"revoked {found.name} ({found.id})")


def _path(settings: Settings) -> Path:
    from glm_rag_server.keys import FILE_NAME

    return settings.home / FILE_NAME


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
