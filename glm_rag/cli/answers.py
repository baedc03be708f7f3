"""`ask`, `chat` and `search`: questions to a knowledge base."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from glm_rag.cli.common import (
    ConfigOption,
    JsonOption,
    KbOption,
    ModelOption,
    console,
    named_model,
    print_json,
    to_plain,
)
from glm_rag.cli.retrieval_options import (
    AlwaysAnswerOption,
    ExpandOption,
    FilterOption,
    LanguageOption,
    PathOption,
    RerankOption,
    SinceOption,
    StrictOption,
    filter_of,
    settings_for_questions,
)
from glm_rag.errors import ConfigError
from glm_rag.types import Answer, AnswerDelta, Citation, ScoredDocument

if TYPE_CHECKING:
    from glm_rag.assistant import Assistant

# White space at the end, and what may become the number of a list item.
_UNDECIDED = re.compile(r"\s+(?:(?<=\n)[ \t]*\d+)?\Z")

# `ask` ends with this code when there was not enough evidence to answer.
EXIT_ABSTAINED = 3

Question = Annotated[str, typer.Argument(help="Your question, in Chinese or English.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(ask)
    app.command()(chat)
    app.command()(search)


def ask(
    question: Question,
    kb: KbOption = "default",
    model: ModelOption = None,
    where: FilterOption = None,
    path: PathOption = None,
    language: LanguageOption = None,
    since: SinceOption = None,
    expand: ExpandOption = None,
    rerank: RerankOption = None,
    always_answer: AlwaysAnswerOption = False,
    strict: StrictOption = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Answer one question with sources.

    Exit code 0: there is an answer. Its sources are the sentences of the documents that support
    it; an answer without any is marked, and `supported` is false in --json. Exit code 3: the
    documents hold no evidence, so it was not answered.

    Example: glm-rag ask "How long is parental leave?" --kb handbook
    """
    from glm_rag.api import stream
    from glm_rag.build import llm_name

    settings = settings_for_questions(
        config,
        {**named_model(model), "retrieval.expand": expand, "retrieval.rerank": rerank},
        filters=filter_of(where, path, language, since),
        always_answer=always_answer,
        strict=strict,
    )
    say_if_unread(llm_name(settings), question)
    deltas = stream(question, kb, config=settings)
    answer = last_answer(deltas) if json else show_stream(deltas)
    if json:
        print_answer(answer)
    raise typer.Exit(EXIT_ABSTAINED if answer.abstained else 0)


def chat(
    kb: KbOption = "default",
    model: ModelOption = None,
    where: FilterOption = None,
    path: PathOption = None,
    language: LanguageOption = None,
    since: SinceOption = None,
    expand: ExpandOption = None,
    rerank: RerankOption = None,
    always_answer: AlwaysAnswerOption = False,
    strict: StrictOption = False,
    config: ConfigOption = None,
) -> None:
    """Talk with a knowledge base in the terminal; /new forgets the conversation, /exit ends.

    Example: glm-rag chat --kb handbook
    """
    from glm_rag.build import build_assistant, llm_name, open_for_questions

    settings = settings_for_questions(
        config,
        {**named_model(model), "retrieval.expand": expand, "retrieval.rerank": rerank},
        filters=filter_of(where, path, language, since),
        always_answer=always_answer,
        strict=strict,
    )
    with open_for_questions(settings, kb) as opened:
        assistant = build_assistant(settings, opened)
        talk = f"Knowledge base {kb}, model {llm_name(settings)}. /new starts over, /exit ends."
        console.print(Text(talk, style="dim"))
        _chat_loop(assistant, llm_name(settings))


def _chat_loop(assistant: Assistant, model: str) -> None:
    answer: Answer | None = None
    while (question := _read_question()) not in {None, "/exit", "/quit"}:
        if question == "/new":
            answer = None
        elif question:
            say_if_unread(model, question)
            answer = _one_turn(assistant, question, answer)


def _one_turn(assistant: Assistant, question: str, history: Answer | None) -> Answer | None:
    """Answer one question; an interrupt ends the answer, an error is told, the talk goes on."""
    from glm_rag.errors import GlmRagError

    deltas = assistant.stream(question, history=history)
    try:
        return show_stream(deltas)
    except KeyboardInterrupt:
        console.print("\n(stopped)", style="dim")
    except GlmRagError as error:
        console.print(Text(str(error), style="red"))
    return history


def _read_question() -> str | None:
    try:
        return console.input("\n[bold cyan]?[/] ").strip()
    except (EOFError, KeyboardInterrupt):
        return None


def search(
    question: Question,
    kb: KbOption = "default",
    k: Annotated[int | None, typer.Option("--k", min=1, help="Passages to show.")] = None,
    where: FilterOption = None,
    path: PathOption = None,
    language: LanguageOption = None,
    since: SinceOption = None,
    mmr: Annotated[
        float | None,
        typer.Option("--mmr", min=0, max=1, help="What being unlike better passages counts."),
    ] = None,
    expand: ExpandOption = None,
    rerank: RerankOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show the passages a question finds, with scores, without answering.

    Example: glm-rag search "育儿假" --kb handbook --k 3
    """
    from glm_rag.build import build_retriever, open_for_questions

    if not question.strip():
        raise ConfigError("the question is empty: type one")
    settings = settings_for_questions(
        config,
        {
            "retrieval.k": k,
            "retrieval.mmr": mmr,
            "retrieval.expand": expand,
            "retrieval.rerank": rerank,
        },
        filters=filter_of(where, path, language, since),
    )
    with open_for_questions(settings, kb) as opened:
        found = build_retriever(settings, opened).search(question)
    if json:
        print_json(found)
    elif found:
        console.print(_search_table(found))
    else:
        console.print("Nothing found.")


def _search_table(found: list[ScoredDocument]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("score", justify="right")
    table.add_column("source", overflow="fold", max_width=32)
    table.add_column("passage", overflow="fold")
    for hit in found:
        passage = " ".join(hit.document.page_content.split())
        text = Text(passage[:300] + ("…" if len(passage) > 300 else ""))
        table.add_row(f"{hit.score:.3f}", Text(_place(hit.document.metadata)), text)
    return table


def _place(metadata: dict[str, object]) -> str:
    page = metadata.get("page")
    title = str(metadata.get("title") or metadata.get("source", ""))
    return f"{title}, p. {page}" if page else title


def say_if_unread(model: str, question: str) -> None:
    """Warn on stderr that the model does not read the question's language."""
    from glm_rag.models.registry import reads
    from glm_rag.text import detect_language

    if not reads(model, detect_language(question)):
        name = Path(model).name
        note = f"{name} reads English only; for Chinese use --model chatglm2-6b-32k"
        Console(stderr=True, highlight=False).print(Text(note, style="yellow"), soft_wrap=True)


def print_answer(answer: Answer) -> None:
    """Print an answer as JSON, with `supported` beside its fields."""
    print_json({**to_plain(answer), "supported": answer.supported})


def last_answer(deltas: Iterator[AnswerDelta]) -> Answer:
    """Run a stream to its end and return the finished answer."""
    for delta in deltas:
        if delta.answer is not None:
            return delta.answer
    raise AssertionError("a stream ends with its answer")


def show_stream(deltas: Iterator[AnswerDelta]) -> Answer:
    """Print an answer as it is made, the number of its source behind each sentence, then those."""
    text, shown = "", 0
    for delta in deltas:
        text += delta.text
        # A mark comes when the next sentence begins: what stands between the two is held back.
        held = None if delta.answer else _UNDECIDED.search(text, shown)
        end = held.start() if held else len(text)
        sys.stdout.write(_marked(text, shown, end, delta.citations))
        sys.stdout.flush()
        shown = end
        if delta.answer is not None:
            sys.stdout.write("\n")
            show_sources(delta.answer)
            return delta.answer
    raise AssertionError("a stream ends with its answer")


def _marked(text: str, start: int, end: int, citations: Sequence[Citation]) -> str:
    """The characters `[start, end)` with the marks that belong there."""
    parts = []
    for citation in citations:
        if citation.answer_end >= start:
            parts.append(f"{text[start : citation.answer_end]}[{citation.index}]")
            start = citation.answer_end
    return "".join([*parts, text[start:end]])


def show_sources(answer: Answer) -> None:
    """Print the citations of an answer, or why there are none."""
    if answer.abstained:
        for place in dict.fromkeys(_place(hit.document.metadata) for hit in answer.nearest):
            console.print(Text(f"  nearest: {place}", style="dim"))
        return
    if not answer.supported:
        console.print("  No sentence of this answer stands in the documents.", style="yellow")
        for passage in answer.context.passages:
            console.print(Text(f"  read: {_place(passage.document.metadata)}", style="dim"))
    for place, quote in dict.fromkeys(map(_cited, answer.citations)):
        console.print(Text(place, style="dim"))
        console.print(Text(quote, style="green"))
    for line in _unsupported_lines(answer):
        console.print(Text(line, style="yellow"))
    for line in _notes(answer):
        console.print(Text(line, style="dim"))
    timings, usage = answer.timings, answer.usage
    first, total = timings.get("first_token", 0), timings.get("total", 0)
    console.print(
        f"  {usage.input_tokens} tokens read, {usage.output_tokens} written, "
        f"first after {first:.1f} s, {total:.1f} s in all",
        style="dim",
    )


def _unsupported_lines(answer: Answer) -> list[str]:
    """What the documents do not say: strange numbers, and sentences beside supported ones."""
    named = {"number": "in no passage", "sentence": "not in the documents"}
    shown = ("number", "sentence") if answer.supported else ("number",)
    found = [(item.kind, answer.text[item.start : item.end]) for item in answer.unsupported]
    return [
        f"  {named[kind]}: “{' '.join(text.split())}”"
        for kind, text in dict.fromkeys(found)
        if kind in shown
    ]


def _notes(answer: Answer) -> list[str]:
    """What was searched for in place of the question, and what of the talk no longer fits."""
    notes = []
    if answer.search_question not in {"", answer.question}:
        notes.append(f"  searched for: {' '.join(answer.search_question.split())}")
    if answer.window is not None and answer.window.rounds_left_out:
        notes.append(f"  not read: the first {answer.window.rounds_left_out} rounds of this talk")
    return notes


def _cited(citation: Citation) -> tuple[str, str]:
    page = f", page {citation.page}" if citation.page else ""
    place = f"{citation.title}{page}, characters {citation.start}–{citation.end}"
    quote = " ".join(citation.quote.split())
    return f"  [{citation.index}] {place}", f"      “{quote}” ({citation.support})"
