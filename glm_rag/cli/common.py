"""Options, consoles and JSON output that the commands share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from glm_rag.errors import ConfigError
from glm_rag.types.plain import to_plain as to_plain  # the commands share it

KbOption = Annotated[str, typer.Option("--kb", help="Name of the knowledge base.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="YAML file with settings (see configs/).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Model name or checkpoint folder.")
]

console = Console(highlight=False)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i)?)?b?", re.IGNORECASE)


def named_model(name: str | None) -> dict[str, str | None]:
    """`--model` as settings: the engine's model, or that of the configured server."""
    return {"model.name": name, "llm.model": name}


def print_json(value: object) -> None:
    """Print dataclasses, mappings and lists as one JSON document on stdout."""
    typer.echo(json.dumps(to_plain(value), ensure_ascii=False, indent=2))


def human_size(num_bytes: int) -> str:
    """Bytes as a short figure: `1.5 MB`."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def byte_progress(*, hidden: bool) -> Progress:
    """A bar that counts bytes and goes when it is done.

    Without a terminal it is hidden in any case: rich would print nothing but an empty line.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    hidden = hidden or not console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=hidden)


def parse_size(text: str) -> int:
    """Bytes of `4GB`, `1.5 GiB`, `500MB` or a plain number.

    Raises:
        ConfigError: no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no size: write it like 4GB or 500MB")
    number, prefix, binary = match.groups()
    power = "kmgt".index(prefix.lower()) + 1 if prefix else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


@contextmanager
def progress_bar(*, hidden: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr; what it gives takes what is being done, done and total."""
    from rich.console import Console
    from rich.progress import Progress

    stderr = Console(stderr=True)
    is_shown = stderr.is_terminal and not hidden
    with Progress(console=stderr, disable=not is_shown, transient=True) as progress:
        task = progress.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        yield tell
