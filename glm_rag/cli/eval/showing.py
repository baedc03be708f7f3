"""What somebody at a terminal sees: a bar while it runs, and the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from glm_rag.cli.common import console, print_json

if TYPE_CHECKING:
    from glm_rag.evaluation.summary import Report

_Item = TypeVar("_Item")


def tracked(items: Iterable[_Item], label: str, total: int) -> Iterator[_Item]:
    """Show a bar on stderr while items come, where somebody sees it."""
    shown = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal) as bar:
        yield from bar.track(items, total=total, description=label)


def show_report(report: Report, out: Path | None, *, json: bool) -> None:
    """Write the report to the folder `out`, if any, and print it."""
    from glm_rag.evaluation.report import tables, write_report

    written = write_report(report, out) if out else []
    if json:
        print_json(report)
        return
    for summary in report.configurations:
        console.print(
            f"{summary.name}: {summary.num_questions} questions, the knowledge base answers "
            f"{summary.num_answerable} of them"
        )
    for title, header, rows in tables(report):
        console.print()
        console.print(_table(title, header, rows))
    for path in written:
        console.print(Text(f"wrote {path}", style="dim"))
    if written and len(written) < 3:
        note = 'no plot: matplotlib is not installed (pip install "glm-rag[eval]")'
        console.print(Text(note, style="dim"))


def _table(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for place, column in enumerate(header):
        table.add_column(column, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
