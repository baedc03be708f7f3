"""Fit the constants of a `Calibration` to a knowledge base, from questions with known passages.

Per language pair, mean and deviation of the cosine of unrelated text come from a sample of the
passages; the bonus of the other language is the difference of these means (for multilingual-e5
it equals what a search over XQuAD had found). What is evidence is a logistic regression: the
first passage of a question against the first one that is left when the right ones are taken away,
and against the first one of questions that nothing answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from glm_rag.errors import ConfigError
from glm_rag.evaluation.abstention import threshold_keeping
from glm_rag.evaluation.measure import Measured
from glm_rag.evaluation.outcome import Evidence, Outcome
from glm_rag.evaluation.regression import logistic_regression
from glm_rag.evaluation.run import probability
from glm_rag.retrieval.calibration import Calibration, LanguagePair
from glm_rag.retrieval.candidates import Candidate
from glm_rag.retrieval.evidence import covered_share, evidence_margin, standardised
from glm_rag.retrieval.fusion import fuse
from glm_rag.types import Language

# Figures that a calibration can change.
FIGURES = (
    "hit@1",
    "evidence kept",
    "rejected, hard",
    "rejected, easy",
    "rejected, absent",
)

_LANGUAGES: tuple[Language, ...] = ("en", "zh")
_PAIRS: tuple[LanguagePair, ...] = tuple((a, b) for a in _LANGUAGES for b in _LANGUAGES)
_FOLDS = 5
_MIN_QUESTIONS = 50
_MIN_GROUPS = 5
# Of one language; with fewer, its constants stay as they were.
_MIN_OF_LANGUAGE = 20
# Without questions about the other language: reject all but this share of its best passages.
_CROSS_REJECTED = 0.95
# Nothing to go by: what keeps noise out of a normal distribution of some ten thousand passages.
_CROSS_Z = 4.0


def check_enough(measured: Sequence[Measured]) -> None:
    """Refuse to fit to a handful of questions.

    Raises:
        ConfigError: too few answerable questions, or about too few documents.
    """
    answerable = [item for item in measured if item.answerable]
    num_groups = len({item.group for item in answerable})
    if len(answerable) < _MIN_QUESTIONS or num_groups < _MIN_GROUPS:
        raise ConfigError(
            f"a calibration needs at least {_MIN_QUESTIONS} questions whose passages are in the "
            f"knowledge base, about {_MIN_GROUPS} documents; there are {len(answerable)} about "
            f"{num_groups}"
        )


def fit(
    measured: Sequence[Measured], *, keep: float = 0.9, base: Calibration | None = None
) -> Calibration:
    """Constants for these questions.

    Args:
        keep: share of the answerable questions whose evidence shall be enough.
        base: constants that stay where the questions say nothing (a language without any). Its
            centres stay: the questions were measured with them.
    """
    draft = _background(measured, base)
    fitted = _regression(measured, draft, base)
    return replace(
        fitted,
        threshold=_thresholds(measured, fitted, keep, base),
        cross_z=_cross_z(measured, fitted, keep, base),
    )


def cross_validated(
    measured: Sequence[Measured], *, keep: float = 0.9, base: Calibration | None = None
) -> list[Outcome]:
    """Each question judged by constants that were fitted without its group."""
    folds = _folds(measured)
    judged: dict[int, Outcome] = {}
    for fold in range(_FOLDS):
        others = [item for item, other in zip(measured, folds, strict=True) if other != fold]
        inside = [place for place, other in enumerate(folds) if other == fold]
        if not inside:
            continue
        constants = fit(others, keep=keep, base=base)
        for place in inside:
            judged[place] = outcome(str(place), measured[place], constants)
    return [judged[place] for place in range(len(measured))]


def judged_by(measured: Iterable[Measured], constants: Calibration) -> list[Outcome]:
    """Each question judged by the same constants."""
    return [outcome(str(place), item, constants) for place, item in enumerate(measured)]


def outcome(name: str, item: Measured, constants: Calibration) -> Outcome:
    """What a question gives under these constants."""
    first = _first(item, item.present, constants)
    with_gold = item.answerable
    return Outcome(
        id=name,
        question="",
        language=item.language,
        group=item.group,
        answerable=item.answerable,
        has_answers=False,
        relevance=(first is not None and first.language in item.right,),
        present=_evidence(item, item.present, constants),
        hard=_evidence(item, item.hard, constants) if with_gold else None,
        easy=_evidence(item, item.easy, constants) if with_gold else None,
    )


def _evidence(item: Measured, candidates: Sequence[Candidate], constants: Calibration) -> Evidence:
    first = _first(item, candidates, constants)
    if first is None:
        return Evidence(None)
    margin = evidence_margin(first, item.weights, item.num_chunks, item.language, constants)
    if first.language != item.language:
        return Evidence(margin)
    return Evidence(margin, probability(margin + constants.threshold[item.language]))


def _first(
    item: Measured, candidates: Sequence[Candidate], constants: Calibration
) -> Candidate | None:
    """The passage that the retriever would put first."""
    return max(
        candidates,
        key=lambda c: fuse(c, item.weights, item.mean_terms, item.language, constants),
        default=None,
    )


def _folds(measured: Sequence[Measured]) -> list[int]:
    names = sorted({item.group for item in measured})
    random.Random(0).shuffle(names)
    fold = {name: place % _FOLDS for place, name in enumerate(names)}
    return [fold[item.group] for item in measured]


# ---------------------------------------------------------------- cosines of unrelated text


def _background(measured: Sequence[Measured], base: Calibration | None) -> Calibration:
    """Means, deviations and bonuses, the rest still zero."""
    known = {pair: found for pair in _PAIRS if (found := _spread(measured, pair)) is not None}
    mean: dict[LanguagePair, float] = {}
    deviation: dict[LanguagePair, float] = {}
    for pair in _PAIRS:
        mean[pair], deviation[pair] = _known_or(known, pair, base)
    bonus = {
        (asked, stored): mean[asked, asked] - mean[asked, stored]
        if {(asked, asked), (asked, stored)} <= set(known)
        else (base.cross_bonus.get((asked, stored), 0.0) if base else 0.0)
        for asked, stored in _PAIRS
        if asked != stored
    }
    nothing: dict[Language, float] = dict.fromkeys(_LANGUAGES, 0.0)
    centre = base.centre if base else {}
    return Calibration(bonus, mean, deviation, 0.0, 0.0, 0.0, nothing, nothing, centre)


def _spread(measured: Sequence[Measured], pair: LanguagePair) -> tuple[float, float] | None:
    asked, stored = pair
    found = np.array(
        [
            item.background[stored]
            for item in measured
            if item.language == asked and stored in item.background
        ]
    )
    if len(found) < _MIN_OF_LANGUAGE:
        return None
    # Of all cosines together: within the questions and between them.
    deviation = np.sqrt((found[:, 1] ** 2).mean() + found[:, 0].var())
    return float(found[:, 0].mean()), float(max(deviation, 1e-6))


def _known_or(
    known: Mapping[LanguagePair, tuple[float, float]],
    pair: LanguagePair,
    base: Calibration | None,
) -> tuple[float, float]:
    if pair in known:
        return known[pair]
    if base is not None:
        return base.mean[pair], base.deviation[pair]
    values = list(known.values())
    if not values:
        raise ConfigError("no question was compared with any passage: the questions are empty")
    return values[0]


# ---------------------------------------------------------------- evidence


def _regression(
    measured: Sequence[Measured], draft: Calibration, base: Calibration | None
) -> Calibration:
    """The draft with weights; those of `base` where hardly a question is in its own language."""
    rows, labels = [], []
    for item in measured:
        cases = [(item.present, item.answerable)]
        if item.answerable:
            cases.append((item.hard, False))
        for candidates, label in cases:
            first = _first(item, candidates, draft)
            if first is not None and first.language == item.language:
                rows.append(_features(item, first, draft))
                labels.append(label)
    if min(sum(labels), len(labels) - sum(labels)) < _MIN_OF_LANGUAGE:
        if base is None:
            raise ConfigError(
                "hardly a question is answered in its own language: a calibration needs "
                f"{_MIN_OF_LANGUAGE} such questions"
            )
        return replace(
            draft,
            weight_cosine=base.weight_cosine,
            weight_coverage=base.weight_coverage,
            intercept=base.intercept,
        )
    (cosine, coverage), intercept = logistic_regression(np.array(rows), np.array(labels))
    # Evidence that counts against an answer is noise, and a negative weight of the cosine would
    # turn the rule for the other language around.
    return replace(
        draft,
        weight_cosine=max(float(cosine), 1e-3),
        weight_coverage=max(float(coverage), 0.0),
        intercept=intercept,
    )


def _features(item: Measured, first: Candidate, draft: Calibration) -> tuple[float, float]:
    z = standardised(first.cosine, (item.language, first.language), draft)
    return z, covered_share(first, item.weights, item.num_chunks)


# ---------------------------------------------------------------- thresholds


def _thresholds(
    measured: Sequence[Measured], fitted: Calibration, keep: float, base: Calibration | None
) -> Mapping[Language, float]:
    logits: dict[Language, list[float]] = {language: [] for language in _LANGUAGES}
    for item in measured:
        first = _first(item, item.present, fitted)
        if item.answerable and first is not None and first.language == item.language:
            # The thresholds are still 0, so margins are logits.
            logits[item.language].append(
                evidence_margin(first, item.weights, item.num_chunks, item.language, fitted)
            )
    every = [logit for values in logits.values() for logit in values]
    if base is not None and len(every) < _MIN_OF_LANGUAGE:
        return base.threshold
    enough = {name: v if len(v) >= _MIN_OF_LANGUAGE else every for name, v in logits.items()}
    return {name: threshold_keeping(np.array(values), keep) for name, values in enough.items()}


def _cross_z(
    measured: Sequence[Measured], fitted: Calibration, keep: float, base: Calibration | None
) -> dict[Language, float]:
    """Least z of a passage in the other language, from questions that only it answers."""
    found: dict[Language, float] = {}
    for language in _LANGUAGES:
        asked = [item for item in measured if item.language == language]
        right = [z for item in asked for z in _right_z(item, fitted)]
        wrong = [z for item in asked for z in _wrong_z(item, fitted)]
        if len(right) >= _MIN_OF_LANGUAGE:
            found[language] = threshold_keeping(np.array(right), keep)
        elif base is not None:
            found[language] = base.cross_z[language]
        elif len(wrong) >= _MIN_OF_LANGUAGE:
            found[language] = float(np.quantile(wrong, _CROSS_REJECTED))
    otherwise = max(found.values(), default=_CROSS_Z)
    return {language: found.get(language, otherwise) for language in _LANGUAGES}


def _right_z(item: Measured, fitted: Calibration) -> list[float]:
    if item.language in item.right:
        return []
    return _z_of_other_language(item, [c for c in item.present if c.language in item.right], fitted)


def _wrong_z(item: Measured, fitted: Calibration) -> list[float]:
    return _z_of_other_language(item, item.hard if item.answerable else item.present, fitted)


def _z_of_other_language(
    item: Measured, candidates: Sequence[Candidate], fitted: Calibration
) -> list[float]:
    return [
        standardised(c.near, (item.language, c.language), fitted)
        for c in candidates
        if c.language != item.language
    ]
