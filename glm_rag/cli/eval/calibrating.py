"""Fit what counts as evidence to the questions, and let the knowledge base use it."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from rich.text import Text

from glm_rag.cli.common import console, print_json, to_plain
from glm_rag.cli.eval.questions import QuestionFile, gold_of
from glm_rag.cli.eval.showing import show_report, tracked
from glm_rag.cli.eval.variants import Variant


def calibrate_to(
    data: QuestionFile,
    variant: Variant,
    *,
    keep: float,
    apply: bool,
    out: Path | None,
    json: bool,
) -> None:
    """Fit the constants so that the share `keep` of answerable questions is answered."""
    from glm_rag.build import open_for_questions
    from glm_rag.evaluation import calibrate
    from glm_rag.evaluation.measure import measure_all
    from glm_rag.evaluation.report import write_report
    from glm_rag.evaluation.summary import make_report
    from glm_rag.retrieval.calibration import calibration_of, calibration_to_json

    with open_for_questions(variant.settings(), variant.kb) as kb:
        found = measure_all(data.questions, gold_of(data.questions, kb), kb)
        measured = list(tracked(found, "measuring", len(data.questions)))
        calibrate.check_enough(measured)
        base = calibration_of(kb)
        fitted = calibrate.fit(measured, keep=keep, base=base)
        runs = {} if base is None else {"as it is": calibrate.judged_by(measured, base)}
        runs["fitted, cross-validated"] = calibrate.cross_validated(measured, keep=keep, base=base)
        report = make_report(data.path.name, runs, calibrate.FIGURES)
        if apply:
            kb.store_calibration(fitted)
    constants = jsonlib.loads(calibration_to_json(fitted))
    if json:
        if out is not None:
            write_report(report, out)
        print_json({"report": to_plain(report), "calibration": constants, "applied": apply})
        return
    show_report(report, out, json=False)
    console.print()
    console.print(Text(jsonlib.dumps(constants, indent=2)))
    if apply:
        console.print(f"Knowledge base {variant.kb} uses these constants from now on.")
    else:
        console.print("Nothing was changed; --apply lets the knowledge base use these constants.")
