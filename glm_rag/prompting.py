"""The prompt: fixed words first, passages as quoted data, the question last."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from glm_rag.templates import Template
from glm_rag.types import ChatTurn, Passage

_MAX_TITLE = 80
# Stands before and behind the text of a passage; `as_data` leaves it nowhere inside. A small model
# reads on over this mark as over none; with quotation marks it recited the example instead.
_QUOTE = "```"

# Text of a document that looks like structure of the prompt: round markers, speaker labels,
# passage numbers, quotation marks of ours, role tokens of other models. One character takes the
# place of one, so offsets stay true. What ends a line for a reader ends one here.
_LINE = r"((?:^|(?<=[\r\v\f\x1c-\x1e\x85\u2028\u2029]))[^\S\n]*)"
_ROUND = re.compile(r"\[(Round\s*\d+)\]", re.IGNORECASE)
_SPEAKER = re.compile(_LINE + r"([问答])：", re.MULTILINE)
_NUMBER = re.compile(_LINE + r"\[(\d+)\]", re.MULTILINE)
_ROLE = re.compile(r"<\|(\w+)\|>")


def build_turns(
    question: str,
    block: str,
    *,
    template: Template,
    refusal: str,
    history: Sequence[ChatTurn] = (),
) -> list[ChatTurn]:
    """The conversation that the model is to continue.

    Layout: system text and example (if any), earlier turns as the model read them, then one user
    turn of passages (best first) and question. So a follow-up begins with the whole prompt before.

    Args:
        block: passages as `render_passages` puts them; may be empty.
        refusal: what the model is to say when the passages do not help.
    """
    # ChatGLM2 has no system role: the text is put directly before the first question, so it
    # ends in a blank line.
    system = f"{template.system.format(refusal=refusal).rstrip()}\n\n"
    return [
        ChatTurn("system", system),
        *_example(template),
        *(ChatTurn(turn.role, turn.prompt or turn.text, turn.token_ids) for turn in history),
        ChatTurn("user", f"{block}\n\n{question}" if block else question),
    ]


def render_passages(passages: Sequence[Passage], template: Template) -> str:
    """Numbered passages with title and page, quoted, as the prompt holds them.

    One that begins in the middle of a table has the table's header above it.
    """
    return "\n\n".join(_render(passage, template) for passage in passages)


def _render(passage: Passage, template: Template) -> str:
    metadata = passage.document.metadata
    title = " ".join(str(metadata.get("title") or "").split())[:_MAX_TITLE]
    page = metadata.get("page")
    header = _header(
        template,
        passage.index,
        as_data(title),
        "" if page is None else template.page.format(page=as_data(str(page))),
    )
    return _quoted(header, passage.table_header, passage.text)


def _example(template: Template) -> Iterator[ChatTurn]:
    if (example := template.example) is not None:
        quoted = _quoted(_header(template, 1, example.title), example.text.strip())
        yield ChatTurn("user", f"{quoted}\n\n{example.question}")
        yield ChatTurn("assistant", example.answer)


def _header(template: Template, index: int, title: str, page: str = "") -> str:
    return template.header.format(index=index, title=title, page=page).rstrip()


def _quoted(header: str, *texts: str) -> str:
    return "\n".join([header, _QUOTE, *(as_data(text) for text in texts if text), _QUOTE])


def as_data(text: str) -> str:
    """Text in which nothing can be taken for the structure of a prompt; the length stays.

    `[Round 3]` becomes `(Round 3)`, `[1]` at the beginning of a line `(1)`, `问：` there `问:`,
    three backquotes three apostrophes and `<|user|>` becomes `<(user)>`.
    """
    text = _ROUND.sub(r"(\1)", text)
    text = _NUMBER.sub(r"\1(\2)", text)
    text = _SPEAKER.sub(r"\1\2:", text)
    text = _ROLE.sub(r"<(\1)>", text)
    return text.replace(_QUOTE, "'''")
