"""`ask`, `chat` and `search`: questions to a knowledge base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
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
from glm_rag.cli.show_answer import (
    last_answer,
    place_of,
    print_answer,
    say_if_unread,
    show_stream,
)
from glm_rag.errors import ConfigError
from glm_rag.types import Answer, ScoredDocument

if TYPE_CHECKING:
    from glm_rag.assistant import Assistant

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
        table.add_row(f"{hit.score:.3f}", Text(place_of(hit.document.metadata)), text)
    return table
