"""`glm-rag quickstart`: from nothing to one cited answer."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.text import Text

from glm_rag.cli.common import ConfigOption, JsonOption, console
from glm_rag.cli.show_answer import print_answer, say_if_unread, show_stream
from glm_rag.config import load_config
from glm_rag.errors import ModelNotFoundError
from glm_rag.samples import handbook_folder
from glm_rag.settings import Settings
from glm_rag.types import Answer, IngestReport

SAMPLE_KB = "handbook"
SAMPLE_MODEL = "smollm2-135m"
SAMPLE_QUESTION = "How long is parental leave?"

NEXT_STEPS = """
What next:
  glm-rag ui --kb handbook                     chat in the browser
  glm-rag search "育儿假" --kb handbook          search; this model answers in English only
  glm-rag ingest PATH --kb mine                your own documents
  glm-rag model pull chatglm2-6b-32k           the 6B model, Chinese and English (12.5 GB); then
  glm-rag ask "…" --kb mine --model chatglm2-6b-32k
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(quickstart)


def quickstart(
    question: Annotated[str, typer.Option("--question", help="What to ask.")] = SAMPLE_QUESTION,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch a small real model, ingest sample documents, answer one question with its source.

    Example: glm-rag quickstart
    """
    started = time.perf_counter()
    settings = load_config(config, overrides={"model.name": SAMPLE_MODEL})
    _say(json, "1/3 Model: SmolLM2-135M-Instruct")
    ensure_model(settings, quiet=json)
    _say(json, f"2/3 Documents: the sample handbook, into knowledge base {SAMPLE_KB!r}")
    report = ingest_samples(settings)
    _say(json, f"    {report.num_added} added, {report.num_skipped} unchanged")
    _say(json, f"3/3 Question: {question}\n")
    say_if_unread(settings.model.name, question)
    answer = _answer(settings, question, quiet=json)
    if json:
        print_answer(answer)
        return
    console.print(f"\nDone in {time.perf_counter() - started:.0f} s.", style="bold")
    console.print(Text(NEXT_STEPS))


def _say(quiet: bool, line: str) -> None:
    if not quiet:
        console.print(Text(line, style="bold" if line[0].isdigit() else "dim"))


def ensure_model(settings: Settings, *, quiet: bool = False) -> None:
    """Pull the model unless it is already there."""
    from glm_rag.models.loading import resolve

    try:
        resolve(settings.model.name, settings.models_dir)
    except ModelNotFoundError:
        from glm_rag.cli.model import pull_with_progress

        pull_with_progress(settings.model.name, settings.models_dir, quiet=quiet)


def ingest_samples(settings: Settings) -> IngestReport:
    """Ingest the sample handbook; unchanged files are skipped."""
    import glm_rag

    return glm_rag.ingest(handbook_folder(), kb=SAMPLE_KB, config=settings)


def _answer(settings: Settings, question: str, *, quiet: bool) -> Answer:
    from glm_rag.api import ask, stream

    if quiet:
        return ask(question, SAMPLE_KB, config=settings)
    return show_stream(stream(question, SAMPLE_KB, config=settings))
