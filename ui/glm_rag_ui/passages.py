"""Passages of a document, and facts about it, as HTML. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from glm_rag.cli.common import human_size
from glm_rag.types import DocumentInfo, KnowledgeBaseInfo, VerifyReport
from glm_rag_ui import evidence, render
from glm_rag_ui.i18n import Translate
from glm_rag_ui.tables import LANGUAGES, kind_name

if TYPE_CHECKING:
    from langchain_core.documents import Document

# What a passage's line says by itself; all else it was added with is shown as `key: value`.
_TOLD = frozenset(
    {"source", "title", "page", "headings", "start", "end", "chunk_index", "content_hash"}
    | {"language", "section", "container"}
)
_LISTED = 50


def document_head(info: DocumentInfo, t: Translate) -> str:
    """Title, file and numbers of one document, with what was lost while reading it."""
    facts = [
        kind_name(info, t),
        t(LANGUAGES[info.language]),
        t("passages", n=info.num_chunks),
        t("characters_n", n=info.num_characters),
        human_size(info.size),
        datetime.fromtimestamp(info.added_at).strftime("%Y-%m-%d %H:%M"),
    ]
    places = [info.source, *(f"= {copy}" for copy in info.copies)]
    lines = "".join(f"<small>{render.escape(place)}</small>" for place in places[:_LISTED])
    warnings = "".join(render.notice("warn", "", text) for text in info.warnings[:_LISTED])
    return (
        f'<section class="gr-docu"><h3><bdi>{render.escape(info.title)}</bdi></h3>'
        f"<p>{render.escape(' · '.join(facts))}</p>{lines}</section>{warnings}"
    )


def passage_list(chunks: Sequence[Document], links: Sequence[str], t: Translate) -> str:
    """Chunks with their text and metadata; `links` lead to each one in its document."""
    articles = "".join(_article(chunk, link, t) for chunk, link in zip(chunks, links, strict=True))
    return f'<div class="gr-sources gr-chunks">{articles}</div>'


def _article(chunk: Document, link: str, t: Translate) -> str:
    metadata = chunk.metadata
    number = int(metadata.get("chunk_index") or 0) + 1
    facts = [t("characters_at", start=metadata["start"], end=metadata["end"])] * (
        "start" in metadata
    )
    if metadata.get("page"):
        facts.insert(0, t("page", n=metadata["page"]))
    if metadata.get("language") in LANGUAGES:
        facts.append(t(LANGUAGES[metadata["language"]]))
    path = " › ".join(str(item) for item in metadata.get("headings") or ())
    extra = "".join(
        f"<small><b>{render.escape(str(key))}</b> {render.escape(str(value))}</small>"
        for key, value in _others(metadata)
    )
    title = f"<b><bdi>{render.escape(path)}</bdi></b>" if path else ""
    where = f'<a href="{render.escape(link)}" target="_self">{t("show_in_document")}</a>'
    return (
        f'<article class="gr-passage"><header><span class="gr-number">{number}</span>{title}'
        f"<small>{render.escape(' · '.join(facts))} · {where}</small>{extra}</header>"
        f"{evidence.highlighted(chunk.page_content, ())}</article>"
    )


def _others(metadata: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in metadata.items() if key not in _TOLD][:_LISTED]


def tiles(info: KnowledgeBaseInfo, num_characters: int, t: Translate) -> str:
    """The totals of a knowledge base, large."""
    figures = {
        "tile_documents": f"{info.num_documents:,}",
        "tile_passages": f"{info.num_chunks:,}",
        "tile_characters": f"{num_characters:,}",
        "tile_failures": f"{info.num_failures:,}",
        "tile_disk": human_size(info.size_bytes),
    }
    body = "".join(
        f"<div><b>{value}</b><span>{t(key)}</span></div>" for key, value in figures.items()
    )
    embedder = render.escape(f"{info.embeddings} ({info.dimension})") if info.embeddings else "–"
    return (
        f'<div class="gr-tiles">{body}</div><p class="gr-figures">{t("embedder")}: {embedder}</p>'
    )


def verified(report: VerifyReport, t: Translate) -> str:
    """What a check found, and what mends it."""
    counted = t("checked", documents=report.num_documents, n=report.num_chunks)
    seconds = f"{report.seconds:.1f} s"
    if not report.num_findings:
        return render.notice("done", t("check_fine"), f"{counted} · {seconds}")
    headline = render.notice("error", t("check_wrong", n=report.num_findings), counted)
    rows = "".join(
        f"<li>{render.escape(render.file_name(f.source) if f.source else f.check)}"
        f"<small>{render.escape(f'{f.check}: {f.problem}')}</small>"
        f"<small>{render.escape(f.mend)}</small></li>"
        for f in report.findings[:_LISTED]
    )
    rest = report.num_findings - min(len(report.findings), _LISTED)
    more = f"<li><small>{t('more', n=rest)}</small></li>" if rest > 0 else ""
    return f'{headline}<ul class="gr-files">{rows}{more}</ul>'
