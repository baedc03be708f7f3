"""What a terminal shows of an answer: its text as it is made, then sources and figures."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from glm_rag.cli.common import console, print_json, to_plain
from glm_rag.types import Answer, AnswerDelta, Citation

# White space at the end, and what may become the number of a list item.
_UNDECIDED = re.compile(r"\s+(?:(?<=\n)[ \t]*\d+)?\Z")


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
        for place in dict.fromkeys(place_of(hit.document.metadata) for hit in answer.nearest):
            console.print(Text(f"  nearest: {place}", style="dim"))
        return
    if not answer.supported:
        console.print("  No sentence of this answer stands in the documents.", style="yellow")
        for passage in answer.context.passages:
            console.print(Text(f"  read: {place_of(passage.document.metadata)}", style="dim"))
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


def place_of(metadata: dict[str, object]) -> str:
    """Title and page of a passage."""
    page = metadata.get("page")
    title = str(metadata.get("title") or metadata.get("source", ""))
    return f"{title}, p. {page}" if page else title
