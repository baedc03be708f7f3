"""A report as a table for people, as JSON for programs, and as a plot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from glm_rag.errors import ConfigError
from glm_rag.evaluation.bootstrap import Estimate
from glm_rag.evaluation.summary import EVERY, METRICS, Report, Summary

Row = tuple[str, ...]


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.json, report.md and, where matplotlib is installed, report.png.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    from glm_rag.evaluation.plot import plot

    files = {"report.json": to_json(report), "report.md": to_markdown(report)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        image = folder / "report.png"
        written = [folder / name for name in files]
        return [*written, image] if plot(report, image) else written
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}") from error


def to_json(report: Report) -> str:
    """All figures."""
    return json.dumps(asdict(report), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def to_markdown(report: Report) -> str:
    """The tables, as Markdown."""
    lines = [f"# {report.dataset}", ""]
    for title, header, rows in tables(report):
        lines += [f"## {title}", "", _markdown_row(header), _markdown_row(["---"] * len(header))]
        lines += [*map(_markdown_row, rows), ""]
    return "\n".join(lines)


def tables(report: Report) -> Iterator[tuple[str, Row, list[Row]]]:
    """Title, header and rows of each table."""
    scopes = list(report.configurations[0].metrics)
    for scope in scopes:
        rows = list(_metric_rows(report, scope))
        if rows:
            names = tuple(summary.name for summary in report.configurations)
            header = ("%, with 95 % interval", *names)
            yield _title(scope), ((*header, "difference") if report.differences else header), rows
    for summary in report.configurations:
        of = f", {summary.name}" if len(report.configurations) > 1 else ""
        if rows := list(_abstention_rows(summary)):
            header = ("questions", "not to be answered", "AUC", "rejected at 90 % kept", "at 95 %")
            yield f"Evidence against no evidence{of}", header, rows
        if summary.reliability is not None:
            error, score = summary.reliability.calibration_error, summary.reliability.brier
            title = f"Reliability{of} (calibration error {error:.3f}, Brier score {score:.3f})"
            yield title, ("predicted", "questions", "mean", "came true"), _bin_rows(summary)
        if summary.latency:
            yield f"Seconds{of}", ("step", "median", "95th percentile"), _latency_rows(summary)


def _title(scope: str) -> str:
    return "All questions" if scope == EVERY else f"Questions in {scope}"


def _metric_rows(report: Report, scope: str) -> Iterator[Row]:
    columns = [summary.metrics.get(scope, {}) for summary in report.configurations]
    if report.differences:
        columns.append(report.differences.get(scope, {}))
    for name in METRICS:
        if any(name in column for column in columns):
            signed = [False] * len(report.configurations) + [True]
            cells = [
                _cell(column, name, sign) for column, sign in zip(columns, signed, strict=False)
            ]
            yield (name, *cells)


def _cell(column: Mapping[str, Estimate], name: str, signed: bool) -> str:
    found = column.get(name)
    if found is None:
        return ""
    sign = "+" if signed else ""
    value, low, high = (f"{100 * x:{sign}.1f}" for x in (found.value, found.low, found.high))
    return f"{value} ({low} to {high}), n = {found.count}"


def _abstention_rows(summary: Summary) -> Iterator[Row]:
    for scope, cases in summary.abstention.items():
        for case, found in cases.items():
            area = f"{found.auc.value:.3f} ({found.auc.low:.3f} to {found.auc.high:.3f})"
            shares = (found.rejected_keeping_90, found.rejected_keeping_95)
            yield (scope, case, area, *(f"{100 * share:.1f}" for share in shares))


def _bin_rows(summary: Summary) -> list[Row]:
    bins = summary.reliability.bins if summary.reliability else ()
    return [
        (f"{b.low:.1f} to {b.high:.1f}", str(b.count), f"{b.predicted:.2f}", f"{b.observed:.2f}")
        for b in bins
    ]


def _latency_rows(summary: Summary) -> list[Row]:
    return [
        (step, f"{found.median:.3f}", f"{found.p95:.3f}") for step, found in summary.latency.items()
    ]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
