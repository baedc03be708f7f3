"""`glm-rag eval`: how good retrieval, answers and silence are on the user's own questions."""

from __future__ import annotations

import hashlib
import json as jsonlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from glm_rag.cli.common import (
    JsonOption,
    ModelOption,
    console,
    named_model,
    print_json,
    to_plain,
)
from glm_rag.config import load_config
from glm_rag.errors import ConfigError
from glm_rag.settings import Settings

if TYPE_CHECKING:
    from glm_rag.evaluation.datasets import Question
    from glm_rag.evaluation.matching import Gold
    from glm_rag.evaluation.outcome import Outcome
    from glm_rag.evaluation.summary import Report
    from glm_rag.evaluation.synthesize import Fact
    from glm_rag.knowledge.base import KnowledgeBase

_Item = TypeVar("_Item")

_SYNTHESIZED = 200
# What changes no answer, and what no file is to hold.
_NOT_OF_A_RUN: Any = {
    "home": True,
    "cache": True,
    "ui": True,
    "server": True,
    "llm": {"api_key"},
    "store": {"token"},
}
# A question is short; a small model that goes on is only slow.
_QUESTION_TOKENS = 64


@dataclass(frozen=True, slots=True)
class _Variant:
    """One configuration to measure."""

    name: str
    kb: str
    config: Path | None
    model: str | None

    def settings(self, **overrides: Any) -> Settings:
        given = {key.replace("__", "."): value for key, value in overrides.items()}
        return load_config(self.config, overrides={**named_model(self.model), **given})


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("eval")(evaluate)


def evaluate(
    dataset: Annotated[
        Path | None, typer.Argument(help="Questions: SQuAD-style JSON, CSV, TSV or JSONL.")
    ] = None,
    kb: Annotated[
        list[str] | None,
        typer.Option("--kb", help="Name of the knowledge base; give two to compare them."),
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option("--config", help="YAML file with settings; give two to compare them."),
    ] = None,
    model: ModelOption = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="Generate answers too; minutes each on a CPU.")
    ] = False,
    k: Annotated[
        int, typer.Option("--k", min=1, help="Passages to look at for each question.")
    ] = 20,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Ask so many questions only.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", help="Seed that draws the --limit questions.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for report and answers; a file with --synthesize."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Fit what counts as evidence to these questions.")
    ] = False,
    keep: Annotated[
        float, typer.Option("--keep", help="Share of answerable questions to answer.")
    ] = 0.9,
    apply: Annotated[
        bool, typer.Option("--apply", help="Let the knowledge base use the calibration.")
    ] = False,
    synthesize: Annotated[
        bool, typer.Option("--synthesize", help="Write questions from the documents to --out.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure retrieval, answers and abstention on questions with known answers.

    DATASET is SQuAD-style JSON, or rows of `question`, `answer`, `source`; a row with only a
    question is one that the documents do not answer. A run with --answers and --out is resumed
    where it was broken off.

    Example: glm-rag eval questions.csv --kb handbook --out report

    Example: glm-rag eval questions.csv --kb handbook --config a.yaml --config b.yaml

    Example: glm-rag eval questions.csv --kb handbook --calibrate --apply

    Example: glm-rag eval --synthesize --kb handbook --out questions.csv
    """
    variants = _variants(kb or ["default"], config or [None], model)
    if (synthesize or calibrate) and (len(variants) > 1 or answers):
        raise ConfigError(
            "--synthesize and --calibrate take one knowledge base, one --config and no --answers"
        )
    if sample is not None and limit is None:
        raise ConfigError("--sample draws --limit questions: give --limit too")
    if apply and not calibrate:
        raise ConfigError("--apply stores what --calibrate fits: give both")
    if synthesize:
        if dataset is not None or calibrate or out is None:
            raise ConfigError("--synthesize takes no DATASET and writes to a file: give --out FILE")
        _synthesize(variants[0], out, limit or _SYNTHESIZED, sample or 0, json)
        return
    if dataset is None:
        raise ConfigError("name a data set, or make one with --synthesize --out FILE")
    if not 0 < keep < 1:
        raise ConfigError(f"--keep must be between 0 and 1, got {keep}")
    questions = _questions(dataset, limit, sample)
    if calibrate:
        _calibrate(variants[0], dataset, questions, keep, apply, out, json)
        return
    runs = {
        variant.name: _ask(variant, dataset, questions, k, answers, out) for variant in variants
    }
    _show(_report(dataset, runs), out, json)


def _variants(
    kbs: Sequence[str], configs: Sequence[Path | None], model: str | None
) -> list[_Variant]:
    size = max(len(kbs), len(configs))
    if size > 2:
        raise ConfigError("two configurations can be compared, not more")
    many_kbs = [*kbs] * size if len(kbs) == 1 else [*kbs]
    many_configs = [*configs] * size if len(configs) == 1 else [*configs]
    found = []
    for name, file in zip(many_kbs, many_configs, strict=True):
        parts = [name] if len(set(kbs)) > 1 else []
        parts += [file.stem] if file is not None and len(set(configs)) > 1 else []
        found.append(_Variant(" ".join(parts) or name, name, file, model))
    if len({variant.name for variant in found}) < len(found):
        raise ConfigError("the two configurations are the same, or their files have one name")
    return found


def _questions(dataset: Path, limit: int | None, seed: int | None) -> list[Question]:
    from glm_rag.evaluation.datasets import choose, read_dataset

    return choose(read_dataset(dataset), limit, seed)


def _gold(kb: KnowledgeBase, questions: Sequence[Question]) -> list[Gold]:
    from glm_rag.evaluation.matching import find_gold

    documents = kb.documents()
    texts = (kb.get_text(document.source) for document in documents)
    golds = find_gold(questions, documents, texts)
    pairs = zip(questions, golds, strict=True)
    absent = [q.id for q, gold in pairs if q.answerable and not gold.present]
    if absent:
        named = ", ".join(absent[:3]) + (", …" if len(absent) > 3 else "")
        note = (
            f"{len(absent)} of {len(questions)} questions have their passage or source outside "
            f"the knowledge base ({named}); they count as questions to decline"
        )
        Console(stderr=True, highlight=False).print(Text(note, style="yellow"), soft_wrap=True)
    return golds


def _progress(items: Iterable[_Item], label: str, total: int) -> Iterator[_Item]:
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


# ---------------------------------------------------------------- measuring


def _ask(
    variant: _Variant,
    dataset: Path,
    questions: Sequence[Question],
    k: int,
    answers: bool,
    out: Path | None,
) -> list[Outcome]:
    from glm_rag.build import build_assistant, build_retriever, open_for_questions
    from glm_rag.evaluation.run import ask_all
    from glm_rag.retrieval.calibration import calibration_of

    settings = variant.settings()
    with open_for_questions(settings, variant.kb) as kb:
        calibration = calibration_of(kb)
        file = _outcome_file(variant, dataset, kb, k, out) if answers and out else nullcontext()
        with file as kept:
            done = {outcome.id: outcome for outcome in (kept.done if kept else ())}
            pairs = zip(questions, _gold(kb, questions), strict=True)
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
            for outcome in _progress(outcomes, variant.name, len(left)):
                done[outcome.id] = outcome
                if kept:
                    kept.append(outcome)
    return [done[question.id] for question in questions]


def _outcome_file(variant: _Variant, dataset: Path, kb: KnowledgeBase, k: int, out: Path) -> Any:
    """Where outcomes are kept; a run with other questions, documents or settings is another."""
    from glm_rag.evaluation.outcome import OutcomeFile
    from glm_rag.retrieval.calibration import calibration_of

    info = kb.info()
    settings = variant.settings().model_dump(mode="json", exclude=_NOT_OF_A_RUN)
    run = {
        "dataset": hashlib.sha256(dataset.read_bytes()).hexdigest(),
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


def _report(dataset: Path, runs: dict[str, list[Outcome]]) -> Report:
    from glm_rag.evaluation.summary import make_report

    return make_report(dataset.name, runs)


def _show(report: Report, out: Path | None, json: bool) -> None:
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
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for place, column in enumerate(header):
            table.add_column(column, justify="left" if place == 0 else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print()
        console.print(table)
    for path in written:
        console.print(Text(f"wrote {path}", style="dim"))
    if written and len(written) < 3:
        note = 'no plot: matplotlib is not installed (pip install "glm-rag[eval]")'
        console.print(Text(note, style="dim"))


# ---------------------------------------------------------------- calibrating


def _calibrate(
    variant: _Variant,
    dataset: Path,
    questions: Sequence[Question],
    keep: float,
    apply: bool,
    out: Path | None,
    json: bool,
) -> None:
    from glm_rag.build import open_for_questions
    from glm_rag.evaluation import calibrate
    from glm_rag.evaluation.measure import measure_all
    from glm_rag.evaluation.summary import make_report
    from glm_rag.retrieval.calibration import calibration_of, calibration_to_json

    with open_for_questions(variant.settings(), variant.kb) as kb:
        found = measure_all(questions, _gold(kb, questions), kb)
        measured = list(_progress(found, "measuring", len(questions)))
        calibrate.check_enough(measured)
        base = calibration_of(kb)
        fitted = calibrate.fit(measured, keep=keep, base=base)
        runs = {} if base is None else {"as it is": calibrate.judged_by(measured, base)}
        runs["fitted, cross-validated"] = calibrate.cross_validated(measured, keep=keep, base=base)
        report = make_report(dataset.name, runs, calibrate.FIGURES)
        if apply:
            kb.store_calibration(fitted)
    constants = jsonlib.loads(calibration_to_json(fitted))
    if json:
        print_json({"report": to_plain(report), "calibration": constants, "applied": apply})
        return
    _show(report, out, json=False)
    console.print()
    console.print(Text(jsonlib.dumps(constants, indent=2)))
    if apply:
        console.print(f"Knowledge base {variant.kb} uses these constants from now on.")
    else:
        console.print("Nothing was changed; --apply lets the knowledge base use these constants.")


# ---------------------------------------------------------------- making questions


def _synthesize(variant: _Variant, out: Path, count: int, seed: int, json: bool) -> None:
    import random

    from glm_rag.build import open_for_questions
    from glm_rag.evaluation.datasets import write_csv
    from glm_rag.evaluation.synthesize import synthesize

    settings = variant.settings(generation__max_tokens=_QUESTION_TOKENS)
    rewrite = _rewriter(settings) if variant.model else None
    with open_for_questions(settings, variant.kb) as kb:
        documents = kb.documents()
        random.Random(seed).shuffle(documents)
        texts = [(d.source, kb.get_text(d.source)) for d in documents[: 2 * count]]
    made = synthesize(texts, count, seed=seed, rewrite=rewrite)
    questions = list(_progress(made, "writing questions", count))
    if not questions:
        raise ConfigError(
            f"no sentence of knowledge base {variant.kb!r} states a number, a date or a name that "
            "could be asked for: write questions by hand, as rows of question, answer, source"
        )
    write_csv(out, questions)
    if json:
        print_json({"questions": len(questions), "file": str(out)})
        return
    console.print(
        f"{len(questions)} questions in {out}. They share their words with the documents: use "
        "them to compare settings, not to judge how well real questions are answered."
    )


def _rewriter(settings: Settings) -> Any:
    from glm_rag.build import build_llm, llm_name
    from glm_rag.evaluation.synthesize import first_question, prompt_for
    from glm_rag.models.registry import reads
    from glm_rag.text import detect_language

    llm = build_llm(settings)

    def rewrite(fact: Fact) -> str:
        if not reads(llm_name(settings), detect_language(fact.sentence)):
            return ""
        return first_question(str(llm.invoke(prompt_for(fact)).text))

    return rewrite
