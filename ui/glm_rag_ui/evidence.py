"""The evidence under an answer: passages with the supporting words marked. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from glm_rag.types import (
    Answer,
    Citation,
    IngestFailure,
    IngestReport,
    Passage,
    ScoredDocument,
)
from glm_rag_ui import account, render
from glm_rag_ui.i18n import Translate

Span = tuple[int, int]
# Address of the page that shows characters of a document, as `shell.link` makes it.
Link = Callable[..., str]

_HEADING = re.compile(r"#{1,6}\s+(?=\S)")
_CHIPS = 3
_NEAREST_SHOWN = 3
_NEAREST_LENGTH = 600
_LISTED = 200


def answer(result: Answer, key: str, t: Translate, link: Link | None = None) -> str:
    """A finished answer: text with marks, or why there is none; sources; figures."""
    spent = render.figures(result, t) + account.window(result.window, t)
    panel = sources(result, key, t, link)
    asked = account.searched(result, t)
    if result.abstained:
        reason = account.why(result, t)
        return asked + render.notice("warn", result.text, reason) + panel + spent
    # Where nothing is supported, one notice says so; a mark at every sentence would not add to it.
    doubts = [u for u in result.unsupported if result.citations or u.kind == "number"]
    body = render.answer_body(result.text, result.citations, doubts, key=key, t=t)
    ended = {"length": "cut", "repetition": "repeated"}.get(result.finish_reason)
    notes = render.notice("info", t(ended)) if ended else ""
    if not result.citations:
        notes += render.notice("warn", t("not_cited"))
    return asked + render.answer_block(body) + notes + panel + spent


def sources(answer: Answer, key: str, t: Translate, link: Link | None = None) -> str:
    """The panel of an answer: cited passages open, the others it read folded."""
    if answer.abstained:
        return nearest(answer.nearest, t, link)
    cited = {citation.index for citation in answer.citations}
    passages = answer.context.passages
    first = [_passage(p, answer.citations, key, t, link) for p in passages if p.index in cited]
    others = [_passage(p, (), key, t, link) for p in passages if p.index not in cited]
    if not passages:
        return ""
    left_out = answer.context.num_dropped
    dropped = f'<p class="gr-figures">{t("dropped", n=left_out)}</p>' if left_out else ""
    if not first:
        count = t("passages", n=len(others))
        return _details("gr-sources", t("read"), count, "".join(others) + dropped)
    if others:
        first.append(_details("gr-others", t("also_read"), str(len(others)), "".join(others)))
    return _details("gr-sources", t("sources"), _glance(answer, t), "".join(first) + dropped)


def _details(css: str, summary: str, glance: str, body: str) -> str:
    return (
        f'<details class="{css}"><summary><b>{summary}</b> <span>{glance}</span></summary>'
        f"{body}</details>"
    )


def _glance(answer: Answer, t: Translate) -> str:
    """What the closed panel shows: the cited places."""
    return _chips(render.place(c.title, c.page, t) for c in answer.citations)


def _chips(places: Iterable[str]) -> str:
    shown = list(dict.fromkeys(places))[:_CHIPS]
    return " ".join(f'<span class="gr-chip">{item}</span>' for item in shown)


def _passage(
    passage: Passage, citations: Sequence[Citation], key: str, t: Translate, link: Link | None
) -> str:
    own = [citation for citation in citations if citation.index == passage.index]
    metadata = passage.document.metadata
    facts = [t("tokens", n=passage.num_tokens)]
    if passage.truncated:
        facts.append(t("truncated"))
    spans = quote_spans(passage.text, int(metadata.get("start", 0) or 0), own)
    # A mark's number leads to the highlighted words, or to the passage where there are none.
    anchor = f' id="{render.escape(key)}-{passage.index}"'
    body = highlighted(passage.text, spans, anchor)
    opened = _opening(metadata, own[0] if own else None, t, link)
    return (
        f'<article class="gr-passage"{"" if spans else anchor}>'
        f"{_head(str(passage.index), metadata, ' · '.join(facts), t, opened)}{body}</article>"
    )


def _opening(
    metadata: Mapping[str, Any], citation: Citation | None, t: Translate, link: Link | None
) -> str:
    """A link to the passage, or the quote of `citation`, inside the whole text."""
    if link is None or not metadata.get("source"):
        return ""
    where: dict[str, object] = {"source": metadata["source"]}
    if citation is not None and 0 <= citation.start < citation.end:
        where |= {"start": citation.start, "end": citation.end}
    elif isinstance(metadata.get("start"), int) and isinstance(metadata.get("end"), int):
        where |= {"start": metadata["start"], "end": metadata["end"]}
    address = link("document", **{name: _sendable(value) for name, value in where.items()})
    # A page of its own: the conversation stays where it is.
    return (
        f'<a class="gr-open" href="{render.escape(address)}" target="_blank" '
        f'rel="noopener noreferrer">{t("open_document")}</a>'
    )


def _sendable(value: object) -> str:
    """What an address can hold."""
    return str(value).encode("utf-8", "replace").decode()


def _head(
    number: str, metadata: Mapping[str, Any], facts: str, t: Translate, opened: str = ""
) -> str:
    """Number, title, page, headings, file and figures of one passage; `opened` is HTML."""
    title, page = _title(metadata)
    path = " › ".join(str(item) for item in metadata.get("headings") or ())
    name = render.file_name(str(metadata.get("source", "")))
    small = [
        f"<bdi>{render.escape(item)}</bdi>"
        for item in dict.fromkeys((path, name))
        if item and item != title
    ]
    if facts:
        small.append(render.escape(facts))
    if opened:
        small.append(opened)
    badge = f'<span class="gr-number">{number}</span>' if number else ""
    return (
        f"<header>{badge}<b>{render.place(title, page, t)}</b>"
        f"<small>{' · '.join(small)}</small></header>"
    )


def quote_spans(text: str, start: int, citations: Iterable[Citation]) -> list[Span]:
    """Where the quotes of `citations` stand in a passage, sorted and merged.

    Args:
        text: the passage as the model read it.
        start: offset of the passage in its document.
        citations: citations of this passage; their offsets count in the document.
    """
    found: list[Span] = []
    for citation in citations:
        if not citation.quote:
            continue
        begin, end = citation.start - start, citation.end - start
        # A shortened passage no longer lines up with its document: look for the words.
        if begin < 0 or text[begin:end] != citation.quote:
            begin = text.find(citation.quote)
            end = begin + len(citation.quote)
        if begin >= 0:
            found.append((begin, end))
    return _merged(sorted(found))


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for begin, end in spans:
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def highlighted(text: str, spans: Sequence[Span], anchor: str = "") -> str:
    """The passage as text, with `spans` (sorted, disjoint) in `<mark>` and headings in bold.

    `anchor` is the attribute that makes the first mark a target of links. Not a character
    is lost or added; the number signs of headings are only out of sight.
    """
    lines: list[str] = []
    start = 0
    for line in text.split("\n"):
        end = start + len(line)
        heading = _HEADING.match(line)
        body = start + (heading.end() if heading else 0)
        rest = _marked(text, (body, end), spans)
        if heading:
            signs = _marked(text, (start, body), spans)
            rest = f'<b class="gr-heading"><span class="gr-signs">{signs}</span>{rest}</b>'
        lines.append(rest)
        start = end + 1
    body_html = "\n".join(lines).replace("<mark>", f"<mark{anchor}>", 1)
    return f'<div class="gr-text" dir="auto">{body_html}</div>'


def _marked(text: str, part: Span, spans: Sequence[Span]) -> str:
    """Characters `part` of `text`, escaped, with the share of each span that lies in it."""
    pieces: list[str] = []
    last, stop = part
    for begin, end in spans:
        begin, end = max(begin, last), min(end, stop)
        if begin < end:
            pieces.append(render.escape(text[last:begin]))
            pieces.append(f"<mark>{render.escape(text[begin:end])}</mark>")
            last = end
    pieces.append(render.escape(text[last:stop]))
    return "".join(pieces)


def nearest(found: Sequence[ScoredDocument], t: Translate, link: Link | None = None) -> str:
    """Passages that came closest when there was no evidence to answer."""
    shown = found[:_NEAREST_SHOWN]
    if not shown:
        return ""
    body = "".join(
        f'<article class="gr-passage">'
        f"{_head('', hit.document.metadata, '', t, _opening(hit.document.metadata, None, t, link))}"
        f"{highlighted(_shortened(hit.document.page_content), ())}</article>"
        for hit in shown
    )
    places = (_title(hit.document.metadata) for hit in shown)
    chips = _chips(render.place(*item, t) for item in places)
    return _details("gr-sources", t("nearest"), chips, body)


def _title(metadata: Mapping[str, Any]) -> tuple[str, int | None]:
    """Title and page; the file's name where there is no title."""
    name = render.file_name(str(metadata.get("source", "")))
    return str(metadata.get("title") or name), metadata.get("page")


def _shortened(text: str) -> str:
    return text if len(text) <= _NEAREST_LENGTH else text[:_NEAREST_LENGTH].rstrip() + "…"


# ---------------------------------------------------------------- the knowledge base


def failure_list(failures: Sequence[IngestFailure], t: Translate) -> str:
    """Files that are not in the knowledge base, each with its reason."""
    return _rows([(render.file_name(f.source), reason(f.error, t)) for f in failures], t)


def reason(error: str, t: Translate) -> str:
    """A failure's reason in the reader's language, with the detail behind it."""
    kind, colon, detail = error.partition(":")
    try:
        headline = t(f"reason_{kind.strip()}")
    except KeyError:
        return error
    return f"{headline}:{detail}" if colon and detail.strip() else headline


def _rows(rows: Sequence[tuple[str, str]], t: Translate) -> str:
    items = "".join(
        f"<li><bdi>{render.escape(name)}</bdi><small>{render.escape(about)}</small></li>"
        for name, about in rows[:_LISTED]
    )
    rest = len(rows) - _LISTED
    more = f"<li><small>{t('more', n=rest)}</small></li>" if rest > 0 else ""
    return f'<ul class="gr-files">{items}{more}</ul>'


def report(result: IngestReport, t: Translate) -> str:
    """What an ingestion did, with the reasons of failures."""
    counts = {
        "report_added": result.num_added,
        "report_updated": result.num_updated,
        "report_skipped": result.num_skipped - result.num_failed_before,
        "report_failed_before": result.num_failed_before,
        "report_failed": len(result.failures),
    }
    line = " · ".join(t(key, n=n) for key, n in counts.items() if n) or t("report_nothing")
    failed = failure_list(result.failures, t) if result.failures else ""
    return render.notice("warn" if failed else "done", line) + failed
