"""`glm-rag kb warm`: read passages ahead of time, so that answers from them start sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.text import Text

from glm_rag.cli.common import (
    ConfigOption,
    JsonOption,
    ModelOption,
    console,
    human_size,
    parse_size,
    print_json,
)
from glm_rag.config import load_config
from glm_rag.types import WarmReport

if TYPE_CHECKING:
    from glm_rag.chat_models import ChatGLM2
    from glm_rag.warming import WarmPlan


def register(kb: typer.Typer) -> None:
    """Add the command to `glm-rag kb`."""
    kb.command()(warm)


def warm(
    name: Annotated[str, typer.Argument(help="Name of the knowledge base.")] = "default",
    budget: Annotated[str, typer.Option(help="Most disk space, as in 4GB or 500MB.")] = "4GB",
    model: ModelOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take, and write nothing.")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Read passages ahead of time, so that answers from them start sooner; most central first.

    What is on disk already is skipped: break it off and go on at any time.

    Example: glm-rag kb warm handbook --budget 4GB
    """
    from glm_rag.build import build_local_llm, open_for_questions, templates_for
    from glm_rag.warming import plan, predict

    settings = load_config(config, overrides={"model.name": model})
    size = parse_size(budget)
    llm = build_local_llm(settings)
    with open_for_questions(settings, name) as opened:
        planned = plan(
            opened.central_passages(),
            llm,
            budget=size,
            templates=templates_for(settings, opened),
        )
    report = predict(planned, llm) if dry_run else _warm(planned, llm, hidden=json)
    if json:
        print_json(report)
    else:
        console.print(Text(_warmed(report, dry_run=dry_run)), soft_wrap=True)


def _warm(planned: WarmPlan, llm: ChatGLM2, *, hidden: bool) -> WarmReport:
    """Read with a bar on stderr; the last report."""
    from glm_rag.warming import warm as read_ahead

    columns = [*Progress.get_default_columns()[:-1], TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), disable=hidden) as bar:
        task = bar.add_task("reading", total=None)
        for report in read_ahead(planned, llm):
            bar.update(task, total=report.bytes_needed, completed=report.bytes_used)
    return report


def _warmed(report: WarmReport, *, dry_run: bool) -> str:
    on_disk = f"{report.num_present} of {report.num_passages} passages were read before"
    if not dry_run:
        used = human_size(report.bytes_used)
        return f"{report.num_read} passages read, {on_disk}, {used} on disk."
    missing = report.num_passages - report.num_present
    size = human_size(report.bytes_needed - report.bytes_used)
    return (
        f"{missing} passages to read ({report.num_tokens} tokens, {size}, "
        f"about {report.seconds_left:.0f} s); {on_disk}."
    )
