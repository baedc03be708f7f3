"""The table of documents, and one of them with its passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from glm_rag.errors import GlmRagError
from glm_rag.types import DocumentInfo
from glm_rag_ui import asking, failures, passages, render, shelf, shell, tables
from glm_rag_ui.sections import adding
from glm_rag_ui.shell import Visit

if TYPE_CHECKING:
    from langchain_core.documents import Document

_PER_PAGE = 10


def section(visit: Visit) -> None:
    """The documents that a filter leaves, and the chosen one below."""
    t = visit.t
    documents = shelf.documents(visit.settings, visit.kb)
    if not documents:
        st.html(render.notice("info", t("empty"), t("empty_here")))
        return
    shown = choose(visit, documents)
    if not shown:
        st.html(render.notice("info", t("no_match")))
    else:
        table(visit, shown)
    source = st.query_params.get("source")
    chosen = next((info for info in documents if info.source == source), None)
    if chosen is not None:
        one(visit, chosen)


def choose(visit: Visit, documents: Sequence[DocumentInfo]) -> list[DocumentInfo]:
    """Filter by text, language and format."""
    t = visit.t
    kinds = list(dict.fromkeys(tables.kind_of(info) for info in documents))
    with st.container(horizontal=True, vertical_alignment="bottom", key="kb-filter"):
        text = st.text_input(
            t("filter_text"),
            placeholder=t("filter_text"),
            label_visibility="collapsed",
            icon=":material/search:",
            key="kb-filter-text",
        )
        language = st.pills(
            t("filter_language"),
            list(tables.LANGUAGES),
            format_func=lambda name: t(tables.LANGUAGES[name]),
            label_visibility="collapsed",
            key="kb-filter-language",
        )
        kind = st.multiselect(
            t("column_kind"),
            sorted(kinds),
            format_func=lambda name: tables.kind_in(name, t),
            placeholder=t("filter_kind"),
            label_visibility="collapsed",
            key="kb-filter-kind",
            width=240,
        )
    return tables.filtered(documents, text, [language] if language else [], kind)


def table(visit: Visit, documents: Sequence[DocumentInfo]) -> None:
    """One row for each document; choosing one opens it below."""
    t = visit.t
    sources = [info.source for info in documents]
    # Rows are chosen by their number: another list must not keep the choice of this one.
    key = f"kb-documents-{hash(tuple(sources))}"
    st.dataframe(
        tables.document_rows(documents, t),
        column_config={
            "title": st.column_config.TextColumn(t("column_title"), width="large"),
            "kind": st.column_config.TextColumn(t("column_kind")),
            "language": st.column_config.TextColumn(t("filter_language")),
            "passages": st.column_config.NumberColumn(t("column_passages"), format="localized"),
            "size": st.column_config.NumberColumn(t("column_size"), format=tables.KILOBYTES),
            "added": st.column_config.DatetimeColumn(t("column_added"), format="YYYY-MM-DD HH:mm"),
            "file": st.column_config.TextColumn(t("column_file")),
        },
        hide_index=True,
        on_select=lambda: open_row(key, sources),
        selection_mode="single-row",
        key=key,
        placeholder="–",
    )
    st.html(f'<p class="gr-figures">{t("documents", n=len(documents))} · {t("choose_row")}</p>')


def open_row(key: str, sources: Sequence[str]) -> None:
    """Show the document of the chosen row, none if there is none."""
    rows = st.session_state[key].selection.rows
    st.query_params.pop("source", None)
    st.session_state.pop("kb-chunk-page", None)
    if rows:
        st.query_params["source"] = sources[rows[0]]


def one(visit: Visit, info: DocumentInfo) -> None:
    """A document: facts, what can be done with it, its passages page by page."""
    t = visit.t
    st.html(passages.document_head(info, t))
    path = shelf.file_of(info.source)
    is_there = path is not None and path.is_file()
    with st.container(horizontal=True):
        if st.button(t("open_text"), icon=":material/article:"):
            shell.go("document", source=info.source)
        if st.button(
            t("read_again"),
            icon=":material/refresh:",
            disabled=not is_there,
            help=t("read_again_help") if is_there else t("file_gone"),
        ):
            assert path is not None
            adding.read_again(visit, (path,))
        asking.button(t("remove"), "kb-remove", icon=":material/delete:", about=info.source)
    asking.dialog(t("remove"), "kb-remove", lambda: confirm_removal(visit, info), about=info.source)
    chunks = shelf.chunks(visit.settings, visit.kb, info.source)
    pages = -(-len(chunks) // _PER_PAGE)
    number = 1
    if pages > 1:
        number = st.pagination(pages, key="kb-chunk-page")
    shown = chunks[(number - 1) * _PER_PAGE : number * _PER_PAGE]
    st.html(passages.passage_list(shown, [link_to(chunk, info) for chunk in shown], t))


def link_to(chunk: Document, info: DocumentInfo) -> str:
    """The address that shows a passage in its document."""
    metadata = chunk.metadata
    place = {name: str(metadata[name]) for name in ("start", "end") if name in metadata}
    return shell.link("document", source=info.source, **place)


def confirm_removal(visit: Visit, info: DocumentInfo) -> None:
    """Ask before a document is removed."""
    t = visit.t
    is_upload = shelf.uploaded_file(visit.settings, visit.kb, info.source) is not None
    st.html(
        f"<p><b><bdi>{render.escape(info.title)}</bdi></b></p>"
        f"<p>{t('remove_text' if is_upload else 'remove_text_file')}</p>"
    )
    if st.button(t("remove_yes"), type="primary", icon=":material/delete:"):
        try:
            shelf.remove(visit.settings, visit.kb, info.source)
        except GlmRagError as error:
            st.html(failures.notice(error, t))
            return
        st.query_params.pop("source", None)
        asking.close()
        st.rerun()
