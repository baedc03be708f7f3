"""A conversation as Markdown: questions, answers, and what supports them as footnotes.

Texts of answers keep their own Markdown, except what could load, link or run something, or
take the rest of the document along: HTML, images, links, code, quotes and headings show as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import unquote

from glm_rag.types import Answer, Citation, Conversation, Language, SavedTurn

_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "untitled": "Conversation",
        "about": "Knowledge base: {kb} · {day}",
        "page": "{title}, page {page}",
        "quote": "{place} ({file}): “{quote}”",
        "number": "In no document: {texts}",
        "sentence": "Not supported by the documents: {texts}",
        "no_source": "No sentence of this answer stands in the documents.",
        "stopped": "Stopped here.",
        "failed": "Broke off: {error}",
        "running": "Still being written.",
        "text": "“{text}”",
        "between": ", ",
    },
    "zh": {
        "untitled": "对话",
        "about": "知识库：{kb} · {day}",
        "page": "{title}，第 {page} 页",
        "quote": "{place}（{file}）：“{quote}”",
        "number": "文档中没有的数字：{texts}",
        "sentence": "文档中没有依据：{texts}",
        "no_source": "这个回答中没有一句话能在文档中找到依据。",
        "stopped": "已停止生成。",
        "failed": "回答中断：{error}",
        "running": "仍在生成。",
        "text": "“{text}”",
        "between": "、",
    },
}
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#~|!$&]")
# Of an answer's own Markdown: emphasis, lists and tables stay.
_ACTIVE = re.compile(
    r"[\\`\[\]<>&#~]"  # code, links, images, HTML, quotes, headings
    r"|^[ \t]*(?=(?:=+|-+)[ \t]*$)",  # a line that makes a heading of the one above
    re.MULTILINE,
)


def to_markdown(conversation: Conversation, language: Language) -> str:
    """One document: a heading per question, the answers, footnotes of their sources at the end."""
    words = _WORDS[language]
    day = datetime.fromtimestamp(conversation.created_at).strftime("%Y-%m-%d")
    parts = [
        f"# {_plain(conversation.title) or words['untitled']}",
        words["about"].format(kb=_plain(conversation.kb), day=day),
    ]
    notes: list[str] = []
    for turn in conversation.turns:
        parts.append(f"## {_plain(turn.question)}")
        parts += _reply(turn, notes, words)
    footnotes = "\n".join(f"[^{number}]: {note}" for number, note in enumerate(notes, 1))
    return "\n\n".join(part for part in (*parts, footnotes) if part) + "\n"


def _reply(turn: SavedTurn, notes: list[str], words: dict[str, str]) -> Iterator[str]:
    """What came of a question; the footnotes it needs are appended to `notes`."""
    answer = turn.answer
    if answer is None:
        yield _active(turn.text.strip())
        if turn.status != "done":
            yield f"*{words[turn.status].format(error=_plain(turn.error))}*"
        return
    yield _with_marks(answer, notes, words)
    for line in _doubts(answer, words):
        yield f"*{line}*"


def _with_marks(answer: Answer, notes: list[str], words: dict[str, str]) -> str:
    text, done = "", 0
    for citation in sorted(answer.citations, key=lambda item: item.answer_end):
        note = _note(citation, words)
        if note not in notes:
            notes.append(note)
        text += _behind_mark(answer.text[done : citation.answer_end], text)
        text += f"[^{notes.index(note) + 1}]"
        done = citation.answer_end
    return (text + _behind_mark(answer.text[done:], text)).strip()


def _behind_mark(said: str, before: str) -> str:
    """The next part of an answer; `(` or `:` would make a link or a footnote of the mark."""
    escape = "\\" if before and said.startswith(("(", ":")) else ""
    return escape + _active(said)


def _note(citation: Citation, words: dict[str, str]) -> str:
    place = citation.title or _file(citation.source)
    if citation.page:
        place = words["page"].format(title=place, page=citation.page)
    quote = words["quote"]
    return quote.format(
        place=_plain(place), file=_plain(_file(citation.source)), quote=_plain(citation.quote)
    )


def _doubts(answer: Answer, words: dict[str, str]) -> Iterator[str]:
    if answer.abstained:
        return
    if not answer.supported:
        yield words["no_source"]
    for kind in ("number", "sentence") if answer.supported else ("number",):
        texts = [answer.text[u.start : u.end] for u in answer.unsupported if u.kind == kind]
        quoted = [words["text"].format(text=_plain(text)) for text in dict.fromkeys(texts)]
        if quoted:
            yield words[kind].format(texts=words["between"].join(quoted))


def _file(source: str) -> str:
    """The last part of a source: whoever reads the document need not know our folders."""
    return unquote(source.rstrip("/").rpartition("/")[2]) or source


def _plain(text: str) -> str:
    """Text as one line that shows as it is."""
    return _MARKUP.sub(lambda found: f"\\{found.group()}", " ".join(text.split()))


def _active(text: str) -> str:
    """An answer's Markdown without what does more than format it."""
    return _ACTIVE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return f"{found.group()}\\" if found.group().isspace() else f"\\{found.group()}"
