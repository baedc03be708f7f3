"""How a run shows itself: a bar in a terminal, lines elsewhere, a summary at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from glm_rag.cli.common import console, human_size
from glm_rag.types import IngestChange, IngestFailure, IngestProgress, IngestReport
from glm_rag_ingest.plan import INSIDE
from glm_rag_ingest.prune import path_of

_MOST_LINES = 30
_NAME_WIDTH = 32
_LINE_SECONDS = 10.0

Listener = Callable[[IngestProgress], None]


@contextmanager
def progress(*, hidden: bool) -> Iterator[Listener | None]:
    """A listener that shows progress on stderr: a bar, or a plain line every ten seconds."""
    if hidden:
        yield None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines()


@contextmanager
def _bar() -> Iterator[Listener]:
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", style="dim", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("looking for files", total=None, state="", left="")

        def show(now: IngestProgress) -> None:
            bar.update(
                task,
                description=_shortened(now.current),
                completed=now.bytes_done,
                total=now.bytes_total or None,
                state=_state(now),
                left=_left(now),
            )

        yield show


class _Lines:
    """A line every ten seconds of a run, for logs."""

    def __init__(self) -> None:
        self._last = 0.0  # seconds of the run at the last line

    def __call__(self, now: IngestProgress) -> None:
        if now.seconds < self._last:  # another run has begun
            self._last = 0.0
        if now.seconds < self._last + _LINE_SECONDS or not now.bytes_total:
            return
        self._last = now.seconds
        percent = 100 * now.bytes_done / now.bytes_total
        parts = (
            f"{percent:.1f} %",
            _state(now),
            f"{human_size(now.bytes_done)} of {human_size(now.bytes_total)}",
            _left(now),
            _shortened(now.current),
        )
        note(", ".join(part for part in parts if part))


def _state(now: IngestProgress) -> str:
    rate = f", {now.rate:.1f}/s" if now.rate else ""
    passages = max(now.num_chunks, now.num_embedded)
    return f"{now.done}/{now.total} files, {passages} passages{rate}"


def _left(now: IngestProgress) -> str:
    return "" if now.seconds_left is None else f"{duration(now.seconds_left)} left"


def duration(seconds: float) -> str:
    """Seconds as a person says them: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def note(line: str) -> None:
    """A line on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(line))


def change(changed: IngestChange, *, would: bool = False) -> None:
    """A line for what was done to one file, or would be."""
    action = "split again" if changed.action == "resplit" else changed.action
    text = f"{'would be ' if would and action != 'failed' else ''}{action}: {shown(changed.source)}"
    if changed.num_chunks:
        text += f" ({changed.num_chunks} passages)"
    console.print(Text(text), soft_wrap=True)


def failures(failed: Iterable[IngestFailure]) -> None:
    """A line for each file that could not be read."""
    for one in failed:
        text = f"failed: {shown(one.source)}: {printable(one.error)}"
        console.print(Text(text), soft_wrap=True)


def summary(report: IngestReport, kb: str, *, dry_run: bool) -> None:
    """What a run did."""
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
    seconds = f"{report.seconds:.1f} s" if report.seconds < 10 else duration(report.seconds)
    console.print(Text(f"{kb}: {named}; {_passages(report)}, {seconds}", "bold"))
    for warning in report.warnings[:_MOST_LINES]:
        console.print(Text(f"warning: {printable(warning)}", "yellow"))
    if len(report.warnings) > _MOST_LINES:
        console.print(Text(f"… and {len(report.warnings) - _MOST_LINES} more warnings", "dim"))
    if report.failures:
        _failure_table(report.failures, kb)


def _passages(report: IngestReport) -> str:
    passages = f"{report.num_chunks} new passages"
    reused = report.num_chunks - report.num_embedded
    if report.num_embedded and reused > 0:
        passages += f" ({reused} with vectors that were known)"
    copies = f", {report.num_copies} copies of other files" if report.num_copies else ""
    return passages + copies


def _failure_table(failed: Sequence[IngestFailure], kb: str) -> None:
    table = Table("file", "reason", box=None, pad_edge=False)
    for failure in failed[:_MOST_LINES]:
        table.add_row(Text(shown(failure.source), overflow="fold"), Text(printable(failure.error)))
    console.print(table)
    if len(failed) > _MOST_LINES:
        more = len(failed) - _MOST_LINES
        console.print(Text(f"… and {more} more: glm-rag kb failures --kb {kb}", "dim"))


def shown(source: str) -> str:
    """A file's path, from the working folder where that is shorter, and the member inside."""
    path = path_of(source)
    if path is None:
        return printable(source)
    here = Path.cwd()
    name = path.relative_to(here) if path.is_relative_to(here) else path
    inside = source.partition(INSIDE)[2]
    return printable(str(name) + (f"{INSIDE}{unquote(inside)}" if inside else ""))


def printable(text: str) -> str:
    """Bytes that are no UTF-8 replaced, line ends and other controls as `\\n`, `\\x1b`."""
    text = os.fsencode(text).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shortened(path: str) -> str:
    name = printable(Path(path).name)
    return name if len(name) <= _NAME_WIDTH else f"…{name[1 - _NAME_WIDTH :]}"
