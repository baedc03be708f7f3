"""Ask every question, keep the outcomes, and report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_rag.cli.eval.questions import QuestionFile, gold_of
from glm_rag.cli.eval.showing import show_report, tracked
from glm_rag.cli.eval.variants import Variant
from glm_rag.errors import ConfigError

if TYPE_CHECKING:
    from glm_rag.evaluation.outcome import Outcome
    from glm_rag.knowledge.base import KnowledgeBase

# What changes no answer, and what no file is to hold.
_NOT_OF_A_RUN: Any = {
    "home": True,
    "cache": True,
    "ui": True,
    "server": True,
    "llm": {"api_key"},
    "store": {"token"},
}


def measure(
    data: QuestionFile,
    variants: Sequence[Variant],
    *,
    k: int,
    answers: bool,
    out: Path | None,
    json: bool,
) -> None:
    """Ask the questions of every variant and show how good it is."""
    from glm_rag.evaluation.summary import make_report

    runs = {variant.name: _ask(data, variant, k, answers, out) for variant in variants}
    show_report(make_report(data.path.name, runs), out, json=json)


def _ask(
    data: QuestionFile, variant: Variant, k: int, answers: bool, out: Path | None
) -> list[Outcome]:
    from glm_rag.build import build_assistant, build_retriever, open_for_questions
    from glm_rag.evaluation.run import ask_all
    from glm_rag.retrieval.calibration import calibration_of

    settings = variant.settings()
    with open_for_questions(settings, variant.kb) as kb:
        calibration = calibration_of(kb)
        file = _outcome_file(data, variant, kb, k, out) if answers and out else nullcontext()
        with file as kept:
            done = {outcome.id: outcome for outcome in (kept.done if kept else ())}
            pairs = zip(data.questions, gold_of(data.questions, kb), strict=True)
            left = [pair for pair in pairs if pair[0].id not in done]
            retriever = build_retriever(variant.settings(retrieval__k=k), kb)
            if left:
                retriever.invoke(left[0][0].text)  # loads the embedder, outside the measured time
            outcomes = ask_all(
                [question for question, _ in left],
                [gold for _, gold in left],
                retriever,
                assistant=build_assistant(settings, kb) if answers else None,
                thresholds=calibration.threshold if calibration else None,
            )
            for outcome in tracked(outcomes, variant.name, len(left)):
                done[outcome.id] = outcome
                if kept:
                    kept.append(outcome)
    return [done[question.id] for question in data.questions]


def _outcome_file(
    data: QuestionFile, variant: Variant, kb: KnowledgeBase, k: int, out: Path
) -> Any:
    """Where outcomes are kept; a run with other questions, documents or settings is another."""
    from glm_rag.evaluation.outcome import OutcomeFile
    from glm_rag.retrieval.calibration import calibration_of

    info = kb.info()
    settings = variant.settings().model_dump(mode="json", exclude=_NOT_OF_A_RUN)
    run = {
        "dataset": hashlib.sha256(data.path.read_bytes()).hexdigest(),
        "kb": [info.name, info.num_documents, info.num_chunks, info.embeddings],
        "calibration": repr(calibration_of(kb)),
        "settings": settings,
        "k": k,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {out}: {error.strerror or error}") from error
    return OutcomeFile(out / f"outcomes-{variant.name.replace(' ', '-')}.jsonl", run)
