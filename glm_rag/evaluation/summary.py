"""Outcomes summed up: figures with intervals, over everything and by question language."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from glm_rag.evaluation.abstention import (
    Bin,
    Roc,
    auc,
    brier,
    calibration_error,
    reliability,
    roc,
    share_kept,
    threshold_keeping,
)
from glm_rag.evaluation.bootstrap import Estimate, difference, draws, estimate
from glm_rag.evaluation.outcome import Outcome
from glm_rag.evaluation.retrieval_metrics import hit, ndcg, reciprocal_rank

# A question's share of a ratio: what it adds above and below the line.
Parts = tuple[float, float]
Metrics = Mapping[str, Callable[[Outcome], Parts]]
NOTHING: Parts = (0.0, 0.0)

EVERY = "all"
_RESAMPLES = 500


def _of_found(measure: Callable[[Outcome], float]) -> Callable[[Outcome], Parts]:
    return lambda o: (measure(o), 1.0) if o.answerable else NOTHING


def _of_answer(name: str) -> Callable[[Outcome], Parts]:
    return lambda o: (
        (float(getattr(o.answer, name)), 1.0)
        if o.answer is not None and o.answerable and o.has_answers
        else NOTHING
    )


def _answered(outcome: Outcome) -> Parts:
    if outcome.answer is None or not outcome.answerable:
        return NOTHING
    return float(not outcome.answer.abstained), 1.0


def _declined(outcome: Outcome) -> Parts:
    if outcome.answer is None or outcome.answerable:
        return NOTHING
    return float(outcome.answer.abstained), 1.0


def _right_citations(outcome: Outcome) -> Parts:
    if outcome.answer is None or not outcome.answerable:
        return NOTHING
    return float(outcome.answer.num_right_citations), float(outcome.answer.num_citations)


def _cited(outcome: Outcome) -> Parts:
    if outcome.answer is None or not outcome.answerable or outcome.answer.abstained:
        return NOTHING
    return float(outcome.answer.num_right_citations > 0), 1.0


def _kept(outcome: Outcome) -> Parts:
    if outcome.present is None or not outcome.answerable:
        return NOTHING
    return float(_score(outcome.present.margin) >= 0), 1.0


def _rejected(case: str) -> Callable[[Outcome], Parts]:
    def parts(outcome: Outcome) -> Parts:
        margin = _case_score(outcome, case)
        return NOTHING if margin is None else (float(margin < 0), 1.0)

    return parts


# Cases of a question that should not be answered. `hard`: the right passages are taken away;
# `easy`: their whole article or document is; `absent`: nothing in the documents answers.
CASES = ("hard", "easy", "absent")

METRICS: Metrics = {
    **{f"hit@{k}": _of_found(lambda o, k=k: hit(o.relevance, k)) for k in (1, 3, 5, 10)},  # type: ignore[misc]
    "MRR@10": _of_found(lambda o: reciprocal_rank(o.relevance, 10)),
    "nDCG@10": _of_found(lambda o: ndcg(o.relevance, 10)),
    "evidence kept": _kept,
    **{f"rejected, {case}": _rejected(case) for case in CASES},
    "answered": _answered,
    "declined": _declined,
    "exact match": _of_answer("exact_match"),
    "F1": _of_answer("f1"),
    "contains the answer": _of_answer("contains"),
    "citation precision": _right_citations,
    "citation recall": _cited,
}


@dataclass(frozen=True, slots=True)
class Abstention:
    """How evidence separates answerable questions from one case of the others.

    `rejected_keeping_90`, `rejected_keeping_95`: share of the others below the threshold that
    keeps 90 or 95 % of the answerable ones, whatever the threshold in use is.
    """

    auc: Estimate
    roc: Roc
    rejected_keeping_90: float
    rejected_keeping_95: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Probabilities of evidence, held against what was so (half of them should be answered)."""

    bins: tuple[Bin, ...]
    calibration_error: float
    brier: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one step."""

    median: float
    p95: float
    count: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one configuration. Shares are 0 to 1; what was not measured is left out.

    Attributes:
        metrics: by scope (`all`, and the question languages if there are two), then by name.
        abstention: by scope, then by case. reliability: None without a calibration.
    """

    name: str
    metrics: Mapping[str, Mapping[str, Estimate]]
    abstention: Mapping[str, Mapping[str, Abstention]]
    reliability: Reliability | None
    latency: Mapping[str, Latency]
    num_questions: int
    num_answerable: int


@dataclass(frozen=True, slots=True)
class Report:
    """One configuration, or two with the second minus the first, question by question."""

    dataset: str
    configurations: tuple[Summary, ...]
    differences: Mapping[str, Mapping[str, Estimate]]


def make_report(
    dataset: str, runs: Mapping[str, Sequence[Outcome]], names: Collection[str] = tuple(METRICS)
) -> Report:
    """Sum up the outcomes of one or two configurations over the same questions.

    Args:
        runs: outcomes by the name of the configuration.
        names: the metrics to give, of `METRICS`.
    """
    chosen = {name: parts for name, parts in METRICS.items() if name in names}
    summaries = tuple(_summarise(name, outcomes, chosen) for name, outcomes in runs.items())
    differences: dict[str, dict[str, Estimate]] = {}
    if len(runs) == 2:
        first, second = runs.values()
        differences = _compare(first, second, chosen)
    return Report(dataset, summaries, differences)


def _summarise(name: str, outcomes: Sequence[Outcome], chosen: Metrics) -> Summary:
    metrics = {
        scope: {
            metric: found
            for metric, parts in chosen.items()
            if (found := estimate(*_columns(members, parts), _groups(members))) is not None
        }
        for scope, members in _scopes(outcomes).items()
    }
    return Summary(
        name=name,
        metrics=metrics,
        abstention={
            scope: separated
            for scope, members in _scopes(outcomes).items()
            if (separated := _abstention(members))
        },
        reliability=_reliability(outcomes),
        latency=_latency(outcomes),
        num_questions=len(outcomes),
        num_answerable=sum(outcome.answerable for outcome in outcomes),
    )


def _compare(
    first: Sequence[Outcome], second: Sequence[Outcome], chosen: Metrics
) -> dict[str, dict[str, Estimate]]:
    """Second minus first on the questions that both have, by scope and metric."""
    others = {outcome.id: outcome for outcome in second}
    shared = [outcome for outcome in first if outcome.id in others]
    differences: dict[str, dict[str, Estimate]] = {}
    for scope, members in _scopes(shared).items():
        partners = [others[outcome.id] for outcome in members]
        differences[scope] = {
            metric: found
            for metric, parts in chosen.items()
            if (
                found := difference(
                    _columns(members, parts), _columns(partners, parts), _groups(members)
                )
            )
            is not None
        }
    return differences


def _scopes(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    languages = sorted({outcome.language for outcome in outcomes})
    scopes = {EVERY: list(outcomes)}
    if len(languages) > 1:
        scopes |= {name: [o for o in outcomes if o.language == name] for name in languages}
    return scopes


def _columns(
    outcomes: Sequence[Outcome], parts: Callable[[Outcome], Parts]
) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array([parts(outcome) for outcome in outcomes], dtype=float).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _groups(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.group for outcome in outcomes]


# ---------------------------------------------------------------- silence


def _score(margin: float | None) -> float:
    return -np.inf if margin is None else margin


def _case_score(outcome: Outcome, case: str) -> float | None:
    """Margin in a case that should be rejected; None where the question has no such case."""
    if case == "absent":
        evidence = None if outcome.answerable else outcome.present
    else:
        evidence = getattr(outcome, case)
    return None if evidence is None else _score(evidence.margin)


def _abstention(outcomes: Sequence[Outcome]) -> dict[str, Abstention]:
    members = [o for o in outcomes if o.answerable and o.present is not None]
    kept = np.array([_score(o.present.margin) for o in members if o.present is not None])
    found: dict[str, Abstention] = {}
    for case in CASES:
        cases = [(o, score) for o in outcomes if (score := _case_score(o, case)) is not None]
        others = np.array([score for _, score in cases])
        value = auc(kept, others)
        if value is None:
            continue
        groups = _groups(members), _groups([outcome for outcome, _ in cases])
        low, high = _auc_interval(kept, others, groups, paired=case != "absent")
        found[case] = Abstention(
            auc=Estimate(value, low, high, len(others)),
            roc=roc(kept, others),
            rejected_keeping_90=_rejected_keeping(kept, others, 0.90),
            rejected_keeping_95=_rejected_keeping(kept, others, 0.95),
        )
    return found


def _auc_interval(
    kept: np.ndarray, others: np.ndarray, groups: tuple[list[str], list[str]], *, paired: bool
) -> tuple[float, float]:
    """`paired`: both are scores of the same questions, which are drawn together."""
    weights = draws(len(kept), groups[0], _RESAMPLES, seed=1)
    other_weights = weights if paired else draws(len(others), groups[1], _RESAMPLES, seed=2)
    drawn = [
        auc(np.repeat(kept, mine), np.repeat(others, theirs))
        for mine, theirs in zip(weights, other_weights, strict=True)
    ]
    low, high = np.percentile([value for value in drawn if value is not None], (2.5, 97.5))
    return float(low), float(high)


def _rejected_keeping(kept: np.ndarray, others: np.ndarray, share: float) -> float:
    threshold = threshold_keeping(kept, share)
    return 1 - float(share_kept(others, np.array([threshold]))[0])


def _reliability(outcomes: Sequence[Outcome]) -> Reliability | None:
    """Each answerable question once with its passages and once without the right ones."""
    pairs = [
        (evidence.probability, is_answerable)
        for outcome in outcomes
        if outcome.answerable
        for evidence, is_answerable in ((outcome.present, True), (outcome.hard, False))
        if evidence is not None and evidence.probability is not None
    ]
    predicted, observed = [chance for chance, _ in pairs], [was_so for _, was_so in pairs]
    score = brier(predicted, observed)
    bins = reliability(predicted, observed)
    error = calibration_error(bins)
    if score is None or error is None:
        return None
    return Reliability(bins, error, score)


def _latency(outcomes: Sequence[Outcome]) -> dict[str, Latency]:
    steps: dict[str, list[float]] = {}
    for outcome in outcomes:
        for step, seconds in outcome.timings.items():
            steps.setdefault(step, []).append(seconds)
    return {
        step: Latency(float(np.median(seconds)), float(np.percentile(seconds, 95)), len(seconds))
        for step, seconds in steps.items()
    }
