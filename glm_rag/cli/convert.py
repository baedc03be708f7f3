"""`glm-rag model convert`: round a model once, so that it opens at once from then on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from glm_rag.cli.common import ConfigOption, JsonOption, console, print_json
from glm_rag.config import load_config
from glm_rag.settings import expand_user


def register(app: typer.Typer) -> None:
    """Add the command to the `model` commands."""
    app.command()(convert)


def convert(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_PATH", help="Model or its folder.")],
    quantize: Annotated[
        Literal["auto", "int4", "int8"],
        typer.Option(help="Bits of the weights; auto: of a published int4 or int8 checkpoint."),
    ] = "auto",
    group: Annotated[
        int, typer.Option(help="Weights that share a scale: 32 is closer, 128 smaller and faster.")
    ] = 32,
    embedding_bits: Annotated[
        int, typer.Option(help="Bits of embedding and output layer: 8, 4, or 0 for 32-bit floats.")
    ] = 8,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder; default: NAME-int4-g32 (or the like) among the models."),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Round a model to 4 or 8 bits and save it in the layout that opens in no time.

    Needs about as much memory as the result. ChatGLM2-6B becomes 3.8 GB in int4.

    Examples:

      glm-rag model convert chatglm2-6b-32k --quantize int4

      glm-rag model convert ~/models/my-chatglm2 --quantize int8 --out ~/models/my-chatglm2-int8
    """
    from glm_rag.models.loading import model_info, resolve
    from glm_rag.models.quantized import save_quantized

    models_dir = load_config(config).models_dir
    source = resolve(name, models_dir)
    target = expand_user(out) if out else models_dir / _default_name(source, quantize, group)
    hidden = json or not console.is_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("reading", total=None)

        def show(step: str, done: int, total: int | None) -> None:
            progress.update(task, description=step, completed=done, total=total)

        folder = save_quantized(
            source,
            target,
            quantize=quantize,
            group=group,
            embedding_bits=embedding_bits,
            on_progress=show,
        )
    if json:
        print_json(model_info(folder))
        return
    asked = folder.name if out is None else folder
    console.print(
        Text(f"Saved in {folder}\nNext: glm-rag ask QUESTION --model {asked}"), soft_wrap=True
    )


def _default_name(source: Path, quantize: str, group: int) -> str:
    kind = "converted" if quantize == "auto" else f"{quantize}-g{group}"
    return f"{source.name}-{kind}"
