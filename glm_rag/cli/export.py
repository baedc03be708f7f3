"""`glm-rag model export`: a model in the form that other engines read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from glm_rag.cli.common import (
    ConfigOption,
    JsonOption,
    byte_progress,
    console,
    human_size,
    parse_size,
    print_json,
)
from glm_rag.config import load_config
from glm_rag.settings import expand_user


def register(app: typer.Typer) -> None:
    """Add the command to the `model` commands."""
    app.command()(export)


def export(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_PATH", help="Model or its folder.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="glm-hf|gguf",
            help="glm-hf: stock GlmForCausalLM of transformers, vLLM and SGLang; gguf: llama.cpp.",
        ),
    ] = "glm-hf",
    dtype: Annotated[
        str,
        typer.Option(help="auto, float32, bfloat16 or float16; auto: as stored."),
    ] = "auto",
    max_shard: Annotated[str, typer.Option(help="Largest weight file of glm-hf, as 4GB.")] = "4GB",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Write a model in a form that transformers, vLLM, SGLang or llama.cpp run as they are.

    Weights are copied in blocks, so memory stays small. The folder appears when it is complete.

    Examples:

      glm-rag model export chatglm2-6b-32k --out ~/models/chatglm2-6b-32k-glm

      glm-rag model export chatglm2-6b-32k --format gguf --out ~/models/chatglm2-6b-32k-gguf
    """
    from glm_rag.models.export.export import export_model
    from glm_rag.models.loading import resolve

    settings = load_config(config)
    with byte_progress(hidden=json) as progress:
        task = progress.add_task("reading", total=None)

        def show(step: str, done: int, total: int | None) -> None:
            progress.update(task, description=step, completed=done, total=total)

        report = export_model(
            resolve(name, settings.models_dir),
            expand_user(out),
            form=form,
            dtype=dtype,
            max_shard=parse_size(max_shard),
            rope_mode=settings.model.rope_mode,
            on_progress=show,
        )
    if json:
        print_json(report)
        return
    lines = [
        f"Saved in {report.path}: {human_size(report.size_bytes)} as {report.dtype}",
        *(f"Note: {note}" for note in report.notes),
    ]
    console.print(Text("\n".join(lines)), soft_wrap=True)
