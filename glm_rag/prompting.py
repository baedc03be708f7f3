"""The words around passages and question, in the question's language."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from glm_rag.types import ChatTurn, Language, Passage, Role

_MAX_TITLE = 80


@dataclass(frozen=True, slots=True)
class Template:
    """Texts of one language.

    `system` and `example` stand first and never change, so their work is reusable. The example
    is one made-up question with its answer: it teaches a small model to answer in one sentence
    of the passage. There is none in Chinese: the small model does not read it and would repeat
    its answer as one of the documents', the large one needs no example. `system` ends in a blank
    line because ChatGLM2 has no system role: the text is put directly before the first question.
    """

    system: str
    example: tuple[str, str] | None
    header: str
    page: str


TEMPLATES: dict[Language, Template] = {
    "en": Template(
        system=(
            "Use the passages to answer the question in English. "
            "If they hold no answer, say: {refusal}\n\n"
        ),
        example=(
            "[1] Bridges\nThe bridge over the Lum is 412 metres long. It was built in 1931.\n\n"
            "How long is the bridge?",
            "The bridge over the Lum is 412 metres long.",
        ),
        header="[{index}] {title}{page}",
        page=" (page {page})",
    ),
    "zh": Template(
        system="请根据资料用中文回答问题。如果资料中没有答案，请说：{refusal}\n\n",
        example=None,
        header="[{index}] {title}{page}",
        page="（第{page}页）",
    ),
}

# Text of a document that looks like structure of the prompt: round markers, speaker labels and
# passage numbers. One character takes the place of one, so offsets stay true.
_ROUND = re.compile(r"\[(Round ?\d+)\]")
_SPEAKER = re.compile(r"^([ \t]*[问答])：", re.MULTILINE)
_NUMBER = re.compile(r"^([ \t]*)\[(\d+)\]", re.MULTILINE)


def build_turns(
    question: str,
    block: str,
    *,
    language: Language,
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
    template = TEMPLATES[language]
    roles: tuple[Role, Role] = ("user", "assistant")
    return [
        ChatTurn("system", template.system.format(refusal=refusal)),
        *map(ChatTurn, roles, template.example or ()),
        *(ChatTurn(turn.role, turn.prompt or turn.text, turn.token_ids) for turn in history),
        ChatTurn("user", f"{block}\n\n{question}" if block else question),
    ]


def render_passages(passages: Sequence[Passage], language: Language) -> str:
    """Numbered passages with title and page, as the prompt holds them.

    One that begins in the middle of a table has the table's header above it.
    """
    return "\n\n".join(_render(passage, TEMPLATES[language]) for passage in passages)


def _render(passage: Passage, template: Template) -> str:
    metadata = passage.document.metadata
    title = " ".join(str(metadata.get("title") or "").split())[:_MAX_TITLE]
    page = metadata.get("page")
    header = template.header.format(
        index=passage.index,
        title=as_data(title),
        page="" if page is None else template.page.format(page=page),
    )
    shown = (header.rstrip(), as_data(passage.table_header), as_data(passage.text))
    return "\n".join(part for part in shown if part)


def as_data(text: str) -> str:
    """Text in which nothing can be taken for a round marker, speaker label or passage number.

    `[Round 3]` becomes `(Round 3)` and a line's `问：` becomes `问:`; the length stays.
    """
    text = _ROUND.sub(r"(\1)", text)
    text = _NUMBER.sub(r"\1(\2)", text)
    return _SPEAKER.sub(r"\1:", text)
