"""`glm-rag ingest`: files and folders into a knowledge base."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from glm_rag.cli.common import (
    ConfigOption,
    JsonOption,
    KbOption,
    console,
    print_json,
    to_plain,
)
from glm_rag.config import expand_user, load_config
from glm_rag.errors import ConfigError
from glm_rag.types import IngestFailure, IngestProgress, IngestReport

EXIT_INTERRUPTED = 130
_MOST_LINES = 30
_NAME_WIDTH = 32
# Passages take very unlike times; the rate over this many seconds tells the time left.
_SPEED_SECONDS = 120.0

Paths = Annotated[list[Path], typer.Argument(help="Files and folders.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(ingest)


def ingest(
    paths: Paths,
    kb: KbOption = "default",
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove documents below PATH whose files are gone.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read everything, store nothing, show what would be.")
    ] = False,
    chunk_tokens: Annotated[
        int | None, typer.Option("--chunk-tokens", help="Most tokens of one passage.")
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Read files and folders into a knowledge base; what has not changed is skipped.

    Stop it whenever you like: finished files are in, and the same command goes on with the rest.
    Files that cannot be read are listed with the reason.

    Example: glm-rag ingest docs/ --kb mine
    """
    from glm_rag_ingest.pipeline import Ingestion

    if not any(os.path.lexists(expand_user(path)) for path in paths):
        raise ConfigError(f"no such file or folder: {', '.join(map(str, paths))}")
    settings = load_config(config, overrides={"splitting.chunk_tokens": chunk_tokens})
    with _progress_bar(hidden=json) as show:
        run = Ingestion(paths, kb, settings, prune=prune, dry_run=dry_run, on_progress=show)
        interrupted = False
        try:
            run.run()
        except KeyboardInterrupt:
            interrupted = True
    report = run.report()
    if json:
        print_json({"kb": kb, "dry_run": dry_run, **to_plain(report)})
    else:
        _show(report, kb, dry_run=dry_run)
    if interrupted:
        note = "interrupted: finished files are in; run the same command again to go on\n"
        Console(stderr=True, highlight=False).print(Text(note), end="")
        raise typer.Exit(EXIT_INTERRUPTED)


@contextmanager
def _progress_bar(*, hidden: bool) -> Iterator[Callable[[IngestProgress], None]]:
    bar = Progress(
        TextColumn("{task.description}", table_column=None, markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[files]}", markup=False),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=hidden,
        speed_estimate_period=_SPEED_SECONDS,
    )
    with bar:
        task = bar.add_task("looking for files", total=None, files="")

        def show(progress: IngestProgress) -> None:
            bar.update(
                task,
                description=_shortened(progress.current),
                completed=progress.bytes_done,
                total=progress.bytes_total or None,
                files=f"{progress.done}/{progress.total} files, {progress.num_chunks} passages",
            )

        yield show


def _shortened(path: str) -> str:
    name = os.fsencode(Path(path).name).decode("utf-8", "replace")
    return name if len(name) <= _NAME_WIDTH else f"…{name[1 - _NAME_WIDTH :]}"


def _show(report: IngestReport, kb: str, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    counts = {
        f"{would}added": report.num_added,
        f"{would}updated": report.num_updated,
        "unchanged": report.num_skipped - report.num_failed_before,
        "failed before": report.num_failed_before,
        f"{would}removed": report.num_deleted,
        "failed": len(report.failures),
    }
    named = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "no files"
    seconds = f"{report.seconds:.0f} s" if report.seconds >= 10 else f"{report.seconds:.1f} s"
    console.print(Text(f"{kb}: {named}; {report.num_chunks} new passages, {seconds}", "bold"))
    for warning in report.warnings[:_MOST_LINES]:
        console.print(Text(f"warning: {warning}", "yellow"))
    if report.failures:
        _show_failures(report.failures, kb)


def _show_failures(failures: tuple[IngestFailure, ...], kb: str) -> None:
    table = Table("file", "reason", box=None, pad_edge=False)
    for failure in failures[:_MOST_LINES]:
        table.add_row(Text(_path(failure.source), overflow="fold"), Text(failure.error))
    console.print(table)
    if len(failures) > _MOST_LINES:
        more = len(failures) - _MOST_LINES
        console.print(Text(f"… and {more} more: glm-rag kb failures --kb {kb}", "dim"))


def _path(source: str) -> str:
    """The file's path from the working folder, where that is shorter."""
    from glm_rag_ingest.prune import path_of

    path = path_of(source)
    if path is None:
        return source
    here = Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return os.fsencode(shown).decode("utf-8", "replace")
