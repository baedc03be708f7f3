"""The command and its options: measure, calibrate or make questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glm_rag.cli.common import JsonOption, ModelOption
from glm_rag.cli.eval.calibrating import calibrate_to
from glm_rag.cli.eval.measuring import measure
from glm_rag.cli.eval.questions import QuestionFile
from glm_rag.cli.eval.synthesizing import write_questions
from glm_rag.cli.eval.variants import Variant, variants_of
from glm_rag.errors import ConfigError

_SYNTHESIZED = 200

DatasetArgument = Annotated[
    Path | None, typer.Argument(help="Questions: SQuAD-style JSON, CSV, TSV or JSONL.")
]
KbsOption = Annotated[
    list[str] | None,
    typer.Option("--kb", help="Name of the knowledge base; give two to compare them."),
]
ConfigsOption = Annotated[
    list[Path] | None,
    typer.Option("--config", help="YAML file with settings; give two to compare them."),
]
AnswersOption = Annotated[
    bool, typer.Option("--answers", help="Generate answers too; minutes each on a CPU.")
]
KOption = Annotated[int, typer.Option("--k", min=1, help="Passages to look at for each question.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Ask so many questions only.")
]
SampleOption = Annotated[
    int | None, typer.Option("--sample", help="Seed that draws the --limit questions.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for report and answers; a file with --synthesize."),
]
CalibrateOption = Annotated[
    bool, typer.Option("--calibrate", help="Fit what counts as evidence to these questions.")
]
KeepOption = Annotated[
    float, typer.Option("--keep", help="Share of answerable questions to answer.")
]
ApplyOption = Annotated[
    bool, typer.Option("--apply", help="Let the knowledge base use the calibration.")
]
SynthesizeOption = Annotated[
    bool, typer.Option("--synthesize", help="Write questions from the documents to --out.")
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("eval")(evaluate)


def evaluate(
    dataset: DatasetArgument = None,
    kb: KbsOption = None,
    config: ConfigsOption = None,
    model: ModelOption = None,
    answers: AnswersOption = False,
    k: KOption = 20,
    limit: LimitOption = None,
    sample: SampleOption = None,
    out: OutOption = None,
    calibrate: CalibrateOption = False,
    keep: KeepOption = 0.9,
    apply: ApplyOption = False,
    synthesize: SynthesizeOption = False,
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
    variants = variants_of(kb or ["default"], config or [None], model)
    if synthesize or calibrate:
        _refuse_comparing(variants, answers)
    _refuse_lonely(limit, sample, calibrate, apply)
    if synthesize:
        file = _file_to_write(dataset, calibrate, out)
        write_questions(variants[0], file, limit or _SYNTHESIZED, sample or 0, json=json)
        return
    data = _read(dataset, keep, limit, sample)
    if calibrate:
        calibrate_to(data, variants[0], keep=keep, apply=apply, out=out, json=json)
    else:
        measure(data, variants, k=k, answers=answers, out=out, json=json)


def _refuse_comparing(variants: list[Variant], answers: bool) -> None:
    if len(variants) > 1 or answers:
        raise ConfigError(
            "--synthesize and --calibrate take one knowledge base, one --config and no --answers"
        )


def _refuse_lonely(limit: int | None, sample: int | None, calibrate: bool, apply: bool) -> None:
    if sample is not None and limit is None:
        raise ConfigError("--sample draws --limit questions: give --limit too")
    if apply and not calibrate:
        raise ConfigError("--apply stores what --calibrate fits: give both")


def _file_to_write(dataset: Path | None, calibrate: bool, out: Path | None) -> Path:
    if dataset is not None or calibrate or out is None:
        raise ConfigError("--synthesize takes no DATASET and writes to a file: give --out FILE")
    return out


def _read(dataset: Path | None, keep: float, limit: int | None, sample: int | None) -> QuestionFile:
    if dataset is None:
        raise ConfigError("name a data set, or make one with --synthesize --out FILE")
    if not 0 < keep < 1:
        raise ConfigError(f"--keep must be between 0 and 1, got {keep}")
    return QuestionFile.read(dataset, limit, sample)
