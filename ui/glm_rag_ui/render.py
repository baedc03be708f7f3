"""From answers to safe HTML. Pure functions: every string from outside is escaped here.

The page shows documents, file names and model output only through this module and
`evidence`: as HTML made by us around escaped text. Streamlit's Markdown never sees them, so no
link, image, formula, emoji code or tag inside them can come to life.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, urlsplit

from glm_rag.types import Answer, Citation, Unsupported
from glm_rag_ui.i18n import Translate

# Overrides and isolates of text direction let a file name show another ending than it has.
_BIDI = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\u061c]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

# Two private-use characters carry a mark's number through the Markdown pass.
_MARK_OPEN, _MARK_CLOSE = "\ue000", "\ue001"
_MARK = re.compile(f"{_MARK_OPEN}(\\d+){_MARK_CLOSE}")
_PRIVATE = re.compile(f"[{_MARK_OPEN}{_MARK_CLOSE}]")

_FENCE = re.compile(r"^\s*(?:```|~~~)")
_HEADING = re.compile(r"^\s*#{1,6}\s+(.*)$")
_BULLET = re.compile(r"^(\s*)[-*+•]\s+(.*)$")
_NUMBERED = re.compile(r"^(\s*)(\d{1,4})[.)、]\s*(?=\S)(?!\d)(.*)$")
_CODE = re.compile(r"(`[^`\n]+`)")
_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")
_QUOTE_LIMIT = 320

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
# What Streamlit's Markdown finds in the text after parsing, where a backslash no longer helps:
# emoji and icon codes, colours, addresses and mail addresses, arrows and dashes made of signs.
_FOUND_LATER = re.compile(r"(?<=[:@])|(?<=[<>~=-])(?=[<>=-])|(?<=www)(?=\.)", re.IGNORECASE)
_WORD_JOINER = "\u2060"


def escape(text: str) -> str:
    """Text as it may stand in HTML, in elements and in quoted attributes.

    Control characters and marks of text direction become visible replacement characters.
    """
    return html.escape(_BIDI.sub("\ufffd", _CONTROL.sub("\ufffd", text)), quote=True)


def plain(text: str) -> str:
    """Text with its line breaks, and nothing in it interpreted."""
    return f'<div class="gr-plain" dir="auto">{escape(text)}</div>'


def label(text: str, limit: int = 60) -> str:
    """Foreign text as the label of a widget: Streamlit reads labels as Markdown.

    Line breaks become spaces, and more than `limit` characters an ellipsis. Nothing comes to
    life: Markdown signs are escaped, and invisible word joiners break up what is recognised only
    after parsing.
    """
    line = " ".join(_BIDI.sub("\ufffd", _CONTROL.sub("\ufffd", text[: 20 * limit])).split())
    if len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    return _PUNCTUATION.sub(r"\\\1", _FOUND_LATER.sub(_WORD_JOINER, line))


def file_name(source: str) -> str:
    """The last part of a source URI or path, readable; the source itself if there is none."""
    path = unquote(urlsplit(source).path) if source.startswith("file:") else source
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or source


# ---------------------------------------------------------------- a little Markdown


def markdown(text: str) -> str:
    """HTML of model output: paragraphs, lists, headings, bold and code; all else is text."""
    blocks: list[str] = []
    lines = text.split("\n")
    start = 0
    while start < len(lines):
        block, start = _block(lines, start)
        blocks.append(block)
    return "".join(blocks)


def _block(lines: Sequence[str], start: int) -> tuple[str, int]:
    """One block beginning at line `start`, and the line after it."""
    line = lines[start]
    if not line.strip():
        return "", start + 1
    if _FENCE.match(line):
        return _fenced(lines, start)
    if heading := _HEADING.match(line):
        return f'<p class="gr-heading">{_inline(heading[1])}</p>', start + 1
    for tag, pattern in (("ul", _BULLET), ("ol", _NUMBERED)):
        if pattern.match(line):
            return _list(lines, start, tag, pattern)
    end = start + 1
    while end < len(lines) and _continues(lines[end]):
        end += 1
    body = "<br>".join(_inline(item.strip()) for item in lines[start:end])
    return f"<p>{body}</p>", end


def _continues(line: str) -> bool:
    patterns = (_FENCE, _HEADING, _BULLET, _NUMBERED)
    return bool(line.strip()) and not any(pattern.match(line) for pattern in patterns)


def _fenced(lines: Sequence[str], start: int) -> tuple[str, int]:
    end = start + 1
    while end < len(lines) and not _FENCE.match(lines[end]):
        end += 1
    code = escape("\n".join(lines[start + 1 : end]))
    return f"<pre><code>{code}</code></pre>", end + 1


def _list(lines: Sequence[str], start: int, tag: str, pattern: re.Pattern[str]) -> tuple[str, int]:
    items: list[str] = []
    end = start
    while end < len(lines) and (match := pattern.match(lines[end])):
        # Numbers are kept as the model wrote them, also where it starts at 3.
        number = f' value="{match[2]}"' if tag == "ol" else ""
        nested = ' class="gr-nested"' if len(match[1].expandtabs(4)) >= 2 else ""
        items.append(f"<li{number}{nested}>{_inline(match[match.lastindex or 2])}</li>")
        end += 1
    return f"<{tag}>{''.join(items)}</{tag}>", end


def _inline(text: str) -> str:
    pieces = _CODE.split(text)
    for i, piece in enumerate(pieces):
        if i % 2:
            pieces[i] = f"<code>{escape(piece[1:-1])}</code>"
        else:
            pieces[i] = _BOLD.sub(r"<strong>\1</strong>", escape(piece))
    return "".join(pieces)


# ---------------------------------------------------------------- answers


def answer_body(
    text: str,
    citations: Iterable[Citation] = (),
    unsupported: Iterable[Unsupported] = (),
    *,
    key: str = "",
    t: Translate | None = None,
) -> str:
    """The answer's text with a numbered mark behind each supported part, a `?` behind others.

    Args:
        text: what the model wrote.
        citations: spans of `text` and what supports them.
        unsupported: spans of `text` that nothing supports.
        key: prefix of the anchors of this answer's passages, as given to `evidence.sources`.
        t: translator for the words in the pop-ups; needed only with citations.
    """
    found: list[Citation | Unsupported] = [*citations, *unsupported]
    marked, marks = _insert_marks(_PRIVATE.sub("\ufffd", text), found)
    body = markdown(marked)
    if t is None:
        return body
    return _MARK.sub(lambda found: _mark(marks[int(found[1])], key, t), body)


def _insert_marks(
    text: str, found: Iterable[Citation | Unsupported]
) -> tuple[str, list[Citation | Unsupported]]:
    """`text` with a placeholder at the end of each span, at most one per end and passage."""
    by_place: dict[tuple[int, int], Citation | Unsupported] = {}
    for item in found:
        if isinstance(item, Unsupported):
            by_place.setdefault((min(item.end, len(text)), 0), item)
        else:
            by_place[min(item.answer_end, len(text)), item.index] = item
    places = sorted(by_place)
    marks = [by_place[place] for place in places]
    for number, (end, _) in reversed(list(enumerate(places))):
        text = f"{text[:end]}{_MARK_OPEN}{number}{_MARK_CLOSE}{text[end:]}"
    return text, marks


def _mark(item: Citation | Unsupported, key: str, t: Translate) -> str:
    return _doubt(item, t) if isinstance(item, Unsupported) else _cite(item, key, t)


def _doubt(item: Unsupported, t: Translate) -> str:
    reason = t("no_number" if item.kind == "number" else "no_sentence")
    popup = f'<span class="gr-pop" role="tooltip"><span class="gr-pop-place">{reason}</span></span>'
    return f'<a class="gr-cite gr-unsupported" tabindex="0" aria-label="{reason}">?{popup}</a>'


def _cite(citation: Citation, key: str, t: Translate) -> str:
    quote = citation.quote.strip()
    shown = quote if len(quote) <= _QUOTE_LIMIT else quote[:_QUOTE_LIMIT].rstrip() + "…"
    popup = (
        f'<span class="gr-pop" role="tooltip"><span class="gr-pop-quote" dir="auto">'
        f'{escape(" ".join(shown.split()))}</span><span class="gr-pop-place">'
        f"{place(citation.title, citation.page, t)} · {t(citation.support)}</span></span>"
    )
    return (
        f'<a class="gr-cite gr-{citation.support}" href="#{escape(key)}-{citation.index}" '
        f'aria-label="{t("sources")} {citation.index}">{citation.index}{popup}</a>'
    )


def place(title: str, page: int | None, t: Translate) -> str:
    """Escaped title and page."""
    where = f" · {t('page', n=page)}" if page else ""
    return f"<bdi>{escape(title)}</bdi>{where}"


def figures(answer: Answer, t: Translate) -> str:
    """One quiet line: time to the first word, speed, tokens read and written."""
    timings, usage = answer.timings, answer.usage
    parts = {
        "fig_first": timings.get("first_token", 0.0),
        "fig_speed": tokens_per_second(answer),
        "fig_written": usage.output_tokens,
        "fig_read": usage.input_tokens,
        "fig_total": timings.get("total", 0.0),
    }
    shown = [t(key, n=_figure(value), s=_figure(value)) for key, value in parts.items() if value]
    line = " · ".join(f"<span>{part}</span>" for part in shown)
    return f'<p class="gr-figures">{line}</p>'


def _figure(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"


def tokens_per_second(answer: Answer) -> float:
    """Tokens after the first, per second of decoding; 0 where it cannot be said."""
    timings, tokens = answer.timings, answer.usage.output_tokens
    # `first_token` counts from the question, as `total` does.
    decoding = (
        timings.get("total", 0.0) - timings.get("cite", 0.0) - timings.get("first_token", 0.0)
    )
    return (tokens - 1) / decoding if tokens > 1 and decoding > 0 else 0.0


def answer_block(body: str, *, live: bool = False) -> str:
    """The frame of an answer around `answer_body`; a live one ends in a cursor."""
    css = "gr-answer gr-live" if live else "gr-answer"
    return f'<div class="{css}" dir="auto">{body}</div>'


def waiting(t: Translate, line: str = "") -> str:
    """What stands in the answer's place before its first word; `line` says what is waited for."""
    words = escape(line) if line else t("waiting")
    return f'<p class="gr-waiting" role="status">{words}<i></i><i></i><i></i></p>'


def scroll_to(selector: str, name: str, block: str = "center") -> str:
    """Script that brings an element into view, once for each `name`.

    Only words of our own stand in it; `name` is cut down to letters and digits. Streamlit runs a
    script when its text is new, so drawing the page anew leaves the reader where he is.
    """
    mark = re.sub(r"[^0-9A-Za-z]", "", name)
    return (
        f"<script>/* {mark} */ for (const wait of [0, 250]) setTimeout(() => document"
        f".querySelector('{selector}')?.scrollIntoView({{block: '{block}'}}), wait)</script>"
    )


def files(names: Sequence[str]) -> str:
    """Names of the files that came with a question."""
    chips = " ".join(f'<span class="gr-chip"><bdi>{escape(name)}</bdi></span>' for name in names)
    return f'<p class="gr-attached">{chips}</p>' if chips else ""


def notice(kind: str, headline: str, detail: str = "") -> str:
    """A framed line: `kind` is error, warn, info or done."""
    role = "alert" if kind == "error" else "status"
    title = f"<b>{escape(headline)}</b>" if headline else ""
    body = f"<span>{escape(detail)}</span>" if detail else ""
    return f'<div class="gr-notice gr-{kind}" role="{role}">{title}{body}</div>'


def panel(headline: str, *paragraphs: str, label: str = "", code: str = "") -> str:
    """A calm block for an empty page: a headline, sentences, a command to copy."""
    text = "".join(f"<p>{escape(item)}</p>" for item in paragraphs)
    command = f"<p>{escape(label)}</p><pre><code>{escape(code)}</code></pre>" if code else ""
    return f'<section class="gr-panel"><h2>{escape(headline)}</h2>{text}{command}</section>'


def hero(kb: str, stock: str, t: Translate) -> str:
    """What stands on the page before the first question."""
    return (
        f'<section class="gr-hero"><h1>{t("welcome")}</h1><p>{t("welcome_text")}</p>'
        f'<p class="gr-figures"><bdi>{escape(kb)}</bdi> · {escape(stock)}</p></section>'
    )


def fixed_words(t: Translate) -> str:
    """Style sheet with words that Streamlit itself cannot show in our language.

    They go over the file picker's own, and behind an answer whose script was stopped: a stopped
    script cannot write to the page any more.
    """
    picker = '[data-testid="stFileUploaderDropzone'
    words = {
        f'{picker}"] button [data-testid="stMarkdownContainer"]::after': "picker_button",
        f'{picker}Instructions"]::after': "picker_hint",
        '.stApp[data-test-script-state="notRunning"] :is(.gr-live, .gr-waiting)::after': "stopped",
    }
    return "".join(f'{where} {{ content: "{t(key)}"; }}' for where, key in words.items())
