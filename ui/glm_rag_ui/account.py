"""How an answer came about: what was searched for, why there is none, how the window was spent.

Pure functions that make HTML of our own around escaped text.
"""

from __future__ import annotations

from collections.abc import Iterator

from glm_rag.types import Answer, WindowReport
from glm_rag_ui import render
from glm_rag_ui.i18n import Translate

# How the reasons of `glm_rag.grounding` and `glm_rag.answer_run` begin.
_REASONS = {
    "no passage was found": "why_nothing",
    "the best passage is too weak": "why_weak",
    "the model gave no answer": "why_empty",
    "the model found no answer": "why_declined",
}


def searched(answer: Answer, t: Translate) -> str:
    """What was searched for in place of a follow-up question; nothing if that was the question."""
    by = {"rule": "searched_rule", "model": "searched_model"}.get(
        str(answer.trace.get("search_question_by", ""))
    )
    if by is None or not answer.search_question or answer.search_question == answer.question:
        return ""
    text = " ".join(answer.search_question.split())
    return (
        f'<p class="gr-searched" dir="auto">{t("searched")} '
        f"<q>{render.escape(text)}</q> <span>{t(by)}</span></p>"
    )


def why(answer: Answer, t: Translate) -> str:
    """Why there is no answer, in the reader's language; the reason itself where it is unknown."""
    key = next((k for text, k in _REASONS.items() if answer.reason.startswith(text)), None)
    if key is None:
        return answer.reason
    evidence = answer.trace.get("evidence")
    if key == "why_weak" and isinstance(evidence, int | float):
        return t(key) + t("why_margin", s=f"{evidence:+.2f}")
    return t(key)


def window(report: WindowReport | None, t: Translate) -> str:
    """How the context window was spent: one bar with a legend, folded; nothing if not asked."""
    if report is None or report.size <= 0:
        return ""
    parts = [part for part in _parts(report, t) if part[2] > 0]
    used = sum(tokens for css, _, tokens in parts if css not in {"reserve", "free"})
    bar = "".join(
        f'<i class="gr-w-{css}" style="flex:{tokens}"></i>'
        for css, _, tokens in parts
        if tokens > 0
    )
    legend = "".join(
        f'<li><i class="gr-w-{css}"></i><span>{name}</span><b>{tokens:,}</b></li>'
        for css, name, tokens in parts
    )
    summary = t("window_used", n=used, of=report.size)
    return (
        f'<details class="gr-window"><summary><span class="gr-bar" role="img" '
        f'aria-label="{summary}">{bar}</span><span>{summary}</span></summary>'
        f'<ul class="gr-legend">{legend}</ul>{_left_out(report, t)}</details>'
    )


def _parts(report: WindowReport, t: Translate) -> Iterator[tuple[str, str, int]]:
    """Class, name and tokens of each part, in the order of the prompt."""
    yield "system", t("window_system"), report.system
    yield "history", t("window_history"), report.history
    for number, tokens in enumerate(report.passages):
        yield f"passage{number % 2}", t("window_passage", n=number + 1), tokens
    yield "question", t("window_question"), report.question
    yield "reserve", t("window_reserve"), report.reserve
    yield "free", t("window_free"), report.free


def _left_out(report: WindowReport, t: Translate) -> str:
    counts = {
        "window_rounds_out": report.rounds_left_out,
        "window_rounds_short": report.rounds_shortened,
        "window_passages_out": report.passages_left_out,
    }
    lines = [t(key, n=n) for key, n in counts.items() if n]
    return f'<p class="gr-figures">{" · ".join(lines)}</p>' if lines else ""
