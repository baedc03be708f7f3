"""The conversations of a profile with one knowledge base: which is open, their list, their fate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import streamlit as st

from glm_rag.conversations import to_markdown
from glm_rag.knowledge.uploads import safe_name
from glm_rag.types import Conversation, ConversationInfo
from glm_rag_ui import answering, render, shell
from glm_rag_ui.shell import Visit

_LISTED = 30


def current(visit: Visit) -> Conversation | None:
    """The conversation that the address names, or else this tab showed last; None: a new one."""
    named = st.query_params.get("conversation")
    found = visit.store.get(visit.profile, named) if named else None
    if named and found is None:
        st.html(render.notice("warn", visit.t("conversation_gone")))
    if found is not None and found.kb != visit.kb:
        if "kb" not in st.query_params:
            shell.go("chat", kb=found.kb, conversation=found.id)
        found = None  # another knowledge base was chosen meanwhile
    if found is None and (last := _opened().get(visit.kb)) not in {None, named}:
        found = visit.store.get(visit.profile, str(last))
    if found is None:
        leave(visit.kb)
    else:
        enter(visit.kb, found.id)
    return found


def enter(kb: str, conversation_id: str) -> None:
    """Open a conversation from now on."""
    _opened()[kb] = conversation_id
    if st.query_params.get("conversation") != conversation_id:
        st.query_params["conversation"] = conversation_id


def leave(kb: str) -> None:
    """Open none: the next question begins a new one."""
    _opened().pop(kb, None)
    st.query_params.pop("conversation", None)


def _opened() -> dict[str, str]:
    opened: dict[str, str] = st.session_state.setdefault("opened", {})
    return opened


# ---------------------------------------------------------------- side panel


def panel(visit: Visit, opened: str | None) -> None:
    """New, search, and the list; what can be done with the open one stands below it."""
    t = visit.t
    st.button(
        t("new_conversation"),
        key="new",
        on_click=leave,
        args=(visit.kb,),
        icon=":material/edit_square:",
        width="stretch",
    )
    search = st.session_state.get("search") or ""
    limit = st.session_state.get("listed", _LISTED)
    found = visit.store.list(visit.profile, kb=visit.kb, search=search, limit=limit + 1)
    if not (found or search):
        return
    st.text_input(
        t("search_conversations"),
        key="search",
        placeholder=t("search_conversations"),
        icon=":material/search:",
        label_visibility="collapsed",
    )
    with st.container(key="conversations", gap=None):
        _rows(visit, found[:limit], opened)
        if not found:
            st.html(f'<p class="gr-foot">{t("search_nothing")}</p>')
        if len(found) > limit:
            st.button(t("list_more"), key="more", type="tertiary", on_click=_more, args=(limit,))


def _more(limit: int) -> None:
    st.session_state["listed"] = limit + _LISTED


def _rows(visit: Visit, found: Sequence[ConversationInfo], opened: str | None) -> None:
    day = ""
    for info in found:
        if day != (day := _day(info)):
            st.html(f'<p class="gr-day">{visit.t(day)}</p>')
        if info.id == opened:
            _open_row(visit, info)
        else:
            _title(visit, info)


def _day(info: ConversationInfo) -> str:
    today = datetime.now().astimezone().date()
    asked = datetime.fromtimestamp(info.updated_at).astimezone().date()
    return "today" if asked >= today else "earlier"


def _title(visit: Visit, info: ConversationInfo) -> None:
    st.button(
        render.label(info.title or visit.t("untitled")),
        key=f"open-{info.id}",
        type="tertiary",
        width="stretch",
        wrap=False,
        on_click=enter,
        args=(visit.kb, info.id),
    )


def _open_row(visit: Visit, info: ConversationInfo) -> None:
    """The open conversation, with what can be done to it."""
    t = visit.t
    with st.container(key="opened", gap=None):
        if st.session_state.get("renaming") == info.id:
            st.text_input(
                t("rename"),
                info.title,
                key=f"title-{info.id}",
                max_chars=200,
                on_change=_rename,
                args=(visit, info.id),
                label_visibility="collapsed",
            )
        else:
            _title(visit, info)
        with st.container(horizontal=True, key="doings", gap=None):
            st.button(
                t("rename"),
                key="rename",
                type="tertiary",
                icon=":material/edit:",
                help=t("rename"),
                on_click=_begin_renaming,
                args=(info.id,),
            )
            _export(visit, info)
            if st.button(
                t("delete"),
                key="delete",
                type="tertiary",
                icon=":material/delete:",
                help=t("delete"),
            ):
                _confirm(visit, info)


def _begin_renaming(conversation_id: str) -> None:
    was = st.session_state.pop("renaming", None)
    if was != conversation_id:
        st.session_state["renaming"] = conversation_id


def _rename(visit: Visit, conversation_id: str) -> None:
    st.session_state.pop("renaming", None)
    if title := st.session_state[f"title-{conversation_id}"].strip():
        visit.store.rename(visit.profile, conversation_id, title)


def _export(visit: Visit, info: ConversationInfo) -> None:
    def text() -> str:
        conversation = visit.store.get(visit.profile, info.id)
        return "" if conversation is None else to_markdown(conversation, visit.language)

    st.download_button(
        visit.t("export"),
        text,
        f"{safe_name(info.title.replace('.', ' '))}.md",
        "text/markdown",
        key="export",
        type="tertiary",
        icon=":material/download:",
        help=visit.t("export"),
        on_click="ignore",
    )


def _confirm(visit: Visit, info: ConversationInfo) -> None:
    """Ask before a conversation is deleted."""
    t = visit.t

    @st.dialog(t("delete_title"))
    def ask() -> None:
        st.html(render.plain(t("delete_text", title=info.title)))
        with st.container(horizontal=True, horizontal_alignment="right"):
            if st.button(t("cancel"), key="cancel"):
                st.rerun()
            if st.button(
                t("delete"), key="confirm", type="primary", on_click=_delete, args=(visit, info.id)
            ):
                st.rerun()

    ask()


def _delete(visit: Visit, conversation_id: str) -> None:
    answering.end(conversation_id)
    visit.store.delete(visit.profile, conversation_id)
    leave(visit.kb)
