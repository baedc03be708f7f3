"""Knowledge bases: all of them, and what is in the chosen one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from glm_rag.errors import ConfigError, GlmRagError
from glm_rag.types import KnowledgeBaseInfo
from glm_rag_ui import asking, failures, render, shelf, shell, tables
from glm_rag_ui.i18n import Translate
from glm_rag_ui.sections import adding, documents, overview, picture, problems
from glm_rag_ui.shell import Visit

# A heading on the left, what can be done on the right.
ROW: dict[str, Any] = {
    "horizontal": True,
    "vertical_alignment": "center",
    "horizontal_alignment": "distribute",
}
SECTIONS = {
    "documents": "section_documents",
    "add": "section_add",
    "overview": "section_overview",
    "map": "section_map",
    "failures": "section_failures",
}


def page(visit: Visit) -> None:
    """Draw the page."""
    t = visit.t
    infos = shelf.infos(visit.settings)
    with st.container(key="kb-head", **ROW):
        st.html(f'<h1 class="gr-wide">{t("nav_knowledge")}</h1>', width="content")
        asking.button(t("kb_new"), "kb-new", icon=":material/add:", primary=not infos)
    asking.dialog(t("kb_new"), "kb-new", lambda: new(visit))
    if len(infos) > 1:
        all_of_them(visit, infos)
    info = next((item for item in infos if item.name == visit.kb), None)
    if info is None and not shelf.is_name(visit.settings, visit.kb):
        st.html(render.notice("error", t("kb_bad_name"), t("kb_bad_name_text")))
        return
    if info is None:
        st.html(render.panel(t("kb_absent", kb=visit.kb), t("kb_absent_text")))
        adding.running(visit)
        adding.section(visit)
        return
    head(visit, info)
    if info.error:
        st.html(render.notice("error", t("kb_unusable"), info.error))
        return
    adding.running(visit)
    contents(visit, info)


def all_of_them(visit: Visit, infos: Sequence[KnowledgeBaseInfo]) -> None:
    """Every knowledge base with its numbers; choosing a row opens it."""
    t = visit.t
    names = [info.name for info in infos]
    key = f"kb-list-{hash(tuple(names))}-{visit.kb}"
    chosen = names.index(visit.kb) if visit.kb in names else None
    st.dataframe(
        tables.base_rows(infos, t),
        column_config={
            "name": st.column_config.TextColumn(t("column_name"), width="large"),
            "documents": st.column_config.NumberColumn(t("tile_documents"), format="localized"),
            "passages": st.column_config.NumberColumn(t("column_passages"), format="localized"),
            "failures": st.column_config.NumberColumn(t("tile_failures"), format="localized"),
            "size": st.column_config.NumberColumn(t("tile_disk"), format=tables.KILOBYTES),
        },
        hide_index=True,
        on_select=lambda: open_row(visit, key, names),
        selection_mode="single-row" if chosen is None else "single-row-required",
        selection_default=None if chosen is None else {"selection": {"rows": [chosen]}},
        key=key,
        placeholder="–",
    )


def open_row(visit: Visit, key: str, names: Sequence[str]) -> None:
    """Choose the knowledge base of a row."""
    rows = st.session_state[key].selection.rows
    if rows:
        switch(visit, names[rows[0]])


def switch(visit: Visit, name: str) -> None:
    """Show another knowledge base from the next run of the page on."""
    shell.choose_kb(visit, name)
    st.query_params.pop("source", None)


def head(visit: Visit, info: KnowledgeBaseInfo) -> None:
    """Its name, and what can be done with it as a whole."""
    t, name = visit.t, info.name
    counts = f"{t('documents', n=info.num_documents)} · {t('passages', n=info.num_chunks)}"
    with st.container(key="kb-title", **ROW):
        st.html(
            f"<h2><bdi>{render.escape(name)}</bdi></h2>"
            f'<p class="gr-figures">{"" if info.error else counts}</p>',
            width="content",
        )
        with st.container(horizontal=True, width="content"):
            broken = bool(info.error)
            edit, bin_ = ":material/edit:", ":material/delete:"
            asking.button(t("kb_rename"), "kb-rename", icon=edit, about=name, disabled=broken)
            asking.button(t("kb_delete"), "kb-delete", icon=bin_, about=name)
    asking.dialog(t("kb_rename"), "kb-rename", lambda: renaming(visit, name), about=name)
    asking.dialog(t("kb_delete"), "kb-delete", lambda: deleting(visit, info), about=name)


def contents(visit: Visit, info: KnowledgeBaseInfo) -> None:
    """One of the parts; the others are not drawn, so that the page stays quick."""
    t = visit.t
    section = st.segmented_control(
        t("kb_parts"),
        list(SECTIONS),
        default="documents" if info.num_documents else "add",
        required=True,
        format_func=lambda name: titled(name, info, t),
        key=f"kb-section-{visit.kb}",
        label_visibility="collapsed",
        wrap=True,
    )
    draw: dict[str, Callable[[], None]] = {
        "documents": lambda: documents.section(visit),
        "add": lambda: adding.section(visit),
        "overview": lambda: overview.section(visit, info),
        "map": lambda: picture.section(visit),
        "failures": lambda: problems.section(visit),
    }
    draw[section or "documents"]()


def titled(section: str, info: KnowledgeBaseInfo, t: Translate) -> str:
    """The name of a part; failures with their number."""
    title = t(SECTIONS[section])
    return (
        f"{title} ({info.num_failures})" if section == "failures" and info.num_failures else title
    )


# ---------------------------------------------------------------- dialogs


def new(visit: Visit) -> None:
    """Ask for the name of a new knowledge base and make it."""
    t = visit.t
    with st.form("kb-new", border=False):
        name = st.text_input(t("kb_name")).strip()
        is_sent = st.form_submit_button(t("create"), type="primary")
    if is_sent and done(visit, lambda: shelf.create(visit.settings, name), name):
        switch(visit, name)
        asking.close()
        st.rerun()


def renaming(visit: Visit, old: str) -> None:
    """Ask for the new name."""
    t = visit.t
    with st.form("kb-rename", border=False):
        name = st.text_input(t("kb_name"), value=old).strip()
        is_sent = st.form_submit_button(t("kb_rename"), type="primary")
    if is_sent and done(visit, lambda: shelf.rename(visit.settings, old, name), name):
        switch(visit, name)
        asking.close()
        st.rerun()


def deleting(visit: Visit, info: KnowledgeBaseInfo) -> None:
    """Delete once the name has been typed."""
    t = visit.t
    lost = t("kb_delete_text", n=info.num_documents)
    st.html(f"<p><b><bdi>{render.escape(info.name)}</bdi></b></p><p>{lost}</p>")
    with st.form("kb-delete", border=False):
        typed = st.text_input(t("delete_type")).strip()
        is_sent = st.form_submit_button(t("delete_yes"), type="primary")
    if not is_sent:
        return
    if typed != info.name:
        st.html(render.notice("error", t("delete_differs")))
    elif done(visit, lambda: shelf.delete(visit.settings, info.name)):
        rest = [item.name for item in shelf.infos(visit.settings)]
        switch(visit, rest[0] if rest else visit.kb)
        asking.close()
        st.rerun()


def done(visit: Visit, change: Callable[[], None], name: str = "") -> bool:
    """Make a change, `name` is to be new; where it cannot be made, say why in one line."""
    t = visit.t
    try:
        change()
    except ConfigError:
        st.html(render.notice("error", t("kb_bad_name"), t("kb_bad_name_text")))
    except GlmRagError as error:
        exists = name in [item.name for item in shelf.infos(visit.settings)]
        taken = render.notice("error", t("kb_taken", kb=name), t("kb_taken_text"))
        st.html(taken if exists else failures.notice(error, t))
    else:
        return True
    return False
