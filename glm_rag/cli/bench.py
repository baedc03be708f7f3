"""`glm-rag model bench`: how fast a model runs on this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from glm_rag.cli.common import ConfigOption, JsonOption, console, human_size, print_json
from glm_rag.config import load_config
from glm_rag.errors import MissingDependencyError
from glm_rag.settings import Settings

if TYPE_CHECKING:
    from glm_rag.models.bench import BenchPlan, BenchReport


def register(app: typer.Typer) -> None:
    """Add the command to the `model` commands."""
    app.command()(bench)


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_PATH", help="Model or its folder.")],
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: physical cores.")
    ] = None,
    prompt: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Length of a prompt to read; may be given several times."),
    ] = None,
    context: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Tokens in the cache when writing; may be given several times."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter runs.")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Measure how fast a model loads, reads and writes here, and how much memory it takes.

    Reading (prefill) is measured on random prompts, writing (decode) behind a cache of random
    values. The first figures may be lower while other programs run.

    Examples:

      glm-rag model bench smollm2-135m

      glm-rag model bench chatglm2-6b-32k --threads 4 --prompt 512 --context 0 --context 2048
    """
    settings = load_config(config, overrides={"model.name": name, "model.threads": threads})
    report = _run(settings, prompt, context, quick=quick)
    if json:
        print_json(report)
    else:
        _show(report)


def _run(
    settings: Settings, prompts: list[int] | None, contexts: list[int] | None, *, quick: bool
) -> BenchReport:
    try:
        from glm_rag.models import bench as measuring
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "torch", "engine") from error
    from glm_rag.models.loading import open_engine, resolve

    resolve(settings.model.name, settings.models_dir)  # say what is missing before anything else
    plan = _plan(measuring.QUICK if quick else measuring.BenchPlan(), prompts, contexts)
    progress = Console(stderr=True, highlight=False)
    with progress.status("starting") as status:

        def show(step: str) -> None:
            status.update(step)
            if not progress.is_terminal:
                progress.print(Text(step))

        return measuring.bench(
            lambda: open_engine(settings.model, settings.models_dir), plan, on_step=show
        )


def _plan(plan: BenchPlan, prompts: list[int] | None, contexts: list[int] | None) -> BenchPlan:
    if prompts:
        plan = replace(plan, prompts=tuple(sorted(set(prompts))))
    if contexts:
        plan = replace(plan, contexts=tuple(sorted(set(contexts))))
    return plan


def _show(report: BenchReport) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    weights = ", ".join(filter(None, (report.quantization, report.dtype)))
    for label, value in (
        ("model", report.model),
        ("backend", f"{report.backend}, {weights}, {report.threads} threads on {report.device}"),
        ("load", f"{report.load_seconds:.2f} s, first pass {report.warmup_seconds:.2f} s"),
        *((f"read {s.tokens:,}", f"{s.tokens_per_second:,.1f} tokens/s") for s in report.prefill),
        *(
            (f"write at {s.tokens:,}", f"{s.tokens_per_second:,.1f} tokens/s")
            for s in report.decode
        ),
        ("memory", f"{human_size(report.rss_bytes)}, peak {human_size(report.peak_rss_bytes)}"),
        *(("skipped", reason) for reason in report.skipped),
    ):
        table.add_row(label, Text(value))
    console.print(table)
