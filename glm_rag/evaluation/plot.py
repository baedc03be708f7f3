"""One picture of a report: shares with intervals, ROC curves, reliability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glm_rag.evaluation.bootstrap import Estimate
from glm_rag.evaluation.summary import EVERY, Report


def plot(report: Report, path: Path) -> bool:
    """Draw into a PNG; false where matplotlib is not installed.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(15, 5), layout="constrained")
    FigureCanvasAgg(figure)
    shares, curve, diagram = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    _draw_shares(shares, report)
    _draw_roc(curve, report)
    _draw_reliability(diagram, report)
    figure.savefig(path, dpi=120)
    return True


def _draw_shares(axes: Any, report: Report) -> None:
    names = list(report.configurations[0].metrics[EVERY])[::-1]
    for place, summary in enumerate(report.configurations):
        figures = summary.metrics[EVERY]
        found = [(i, figures[name]) for i, name in enumerate(names) if name in figures]
        heights = [i - 0.15 * place for i, _ in found]
        values = [100 * estimate.value for _, estimate in found]
        axes.errorbar(
            values, heights, xerr=_errors([estimate for _, estimate in found]), fmt="o",
            capsize=3, label=summary.name,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 102)
    axes.set_xlabel("%, with 95 % interval")
    axes.legend(loc="lower left")


def _errors(estimates: list[Estimate]) -> list[list[float]]:
    below = [100 * max(0.0, e.value - e.low) for e in estimates]
    return [below, [100 * max(0.0, e.high - e.value) for e in estimates]]


def _draw_roc(axes: Any, report: Report) -> None:
    for summary in report.configurations:
        for case, found in summary.abstention.get(EVERY, {}).items():
            label = f"{summary.name}, {case}: {found.auc.value:.3f}"
            axes.plot((0, *found.roc.wrongly_kept), (0, *found.roc.kept), label=label)
    axes.plot((0, 1), (0, 1), color="grey", linewidth=0.5)
    axes.set_xlabel("answered without evidence")
    axes.set_ylabel("answerable questions kept")
    axes.set_title("Area under the curve")
    if len(axes.lines) > 1:
        axes.legend(loc="lower right")


def _draw_reliability(axes: Any, report: Report) -> None:
    for summary in report.configurations:
        if summary.reliability is not None:
            bins = summary.reliability.bins
            places = [b.predicted for b in bins], [b.observed for b in bins]
            axes.plot(*places, marker="o", label=summary.name)
    axes.plot((0, 1), (0, 1), color="grey", linewidth=0.5)
    axes.set_xlabel("predicted probability of evidence")
    axes.set_ylabel("came true")
    axes.set_title("Reliability")
    if len(axes.lines) > 1:
        axes.legend(loc="upper left")
