"""What every page shares: whose visit it is, the language, the chosen knowledge base, the menu."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from urllib.parse import urlencode

import streamlit as st

from glm_rag.config import load_config
from glm_rag.settings import Settings
from glm_rag.types import Language
from glm_rag_ui import access, backend, render, session
from glm_rag_ui.i18n import LANGUAGE_NAMES, Translate, choose_language, translator

if TYPE_CHECKING:
    from streamlit.navigation.page import Page

    from glm_rag.conversations import ConversationStore

View = Literal["chat", "knowledge", "document", "retrieval", "settings"]

# In the order of the menu; a document is opened from elsewhere.
ICONS: dict[View, str] = {
    "chat": ":material/forum:",
    "knowledge": ":material/library_books:",
    "retrieval": ":material/manage_search:",
    "settings": ":material/tune:",
}


@dataclass(frozen=True, slots=True)
class Visit:
    """One run of a page for one visitor.

    Attributes:
        settings: with the visitor's own choices in place.
        kb: name of the chosen knowledge base; it may not be there yet.
        t: the words of the page in `language`.
        profile: whose conversations and preferences these are: 32 hexadecimal digits.
    """

    settings: Settings
    kb: str
    language: Language
    t: Translate
    profile: str
    store: ConversationStore


def begin() -> Visit:
    """Find out who visits, in which language, and which knowledge base is meant.

    The address beats what this tab showed last, which beats what the profile remembers: so two
    tabs of one profile do not change each other.

    Raises:
        GlmRagError: the settings cannot be used.
    """
    arguments = session.parse_arguments(sys.argv[1:])
    profile = access.profile()
    plain = plain_settings()
    store = session.store(plain)
    remembered = store.preferences(profile)
    kept = st.session_state
    language = choose_language(
        st.query_params.get("lang") or kept.get("language"),
        remembered.get("language") or plain.ui.language or st.context.locale,
    )
    kb = (st.query_params.get("kb") or "").strip() or kept.get("kb") or arguments.kb
    kb = (
        kb
        or remembered.get("kb")
        or (backend.list_knowledge_bases(plain) or [session.DEFAULT_KB])[0]
    )
    kept["language"], kept["kb"] = language, kb
    settings = session.settings(arguments.config, session.overrides(remembered, kb, plain))
    return Visit(settings, kb, language, translator(language), profile, store)


def plain_settings(choices: Mapping[str, Any] | None = None) -> Settings:
    """The settings of the server, with `choices` (dotted keys) over them.

    Raises:
        ConfigError: they cannot be used.
    """
    return load_config(session.parse_arguments(sys.argv[1:]).config, overrides=choices)


def navigation(visit: Visit, views: Mapping[View, Callable[[Visit], None]]) -> Page:
    """Make the pages known to Streamlit; returns the one that was asked for."""
    pages = {
        name: st.Page(
            partial(draw, visit),
            title=f"{visit.t(f'nav_{name}')} · glm-rag",
            url_path=name,
            default=name == "chat",
        )
        for name, draw in views.items()
    }
    st.session_state["pages"] = pages
    return st.navigation(list(pages.values()), position="hidden")


def side_panel(visit: Visit) -> None:
    """Draw what stands at the top of every page's side panel."""
    t = visit.t
    with st.sidebar:
        language_switch(visit)
        with st.container(key="menu", gap=None):
            for name, icon in ICONS.items():
                st.page_link(
                    st.session_state["pages"][name],
                    label=t(f"nav_{name}"),
                    icon=icon,
                    width="stretch",
                    query_params=_query(),
                )
        knowledge_base_choice(visit)


def go(view: View, **query: str) -> NoReturn:
    """Show another page; language and knowledge base stay, `query` joins them."""
    st.switch_page(st.session_state["pages"][view], query_params={**_query(), **query})


def link(view: View, **query: str) -> str:
    """A relative address for an `<a href>` in HTML of our own, not escaped.

    Language and knowledge base stay, `query` joins them.
    """
    path = "./" if view == "chat" else view
    return f"{path}?{urlencode({**_query(), **query})}"


def _query() -> dict[str, str]:
    return {"lang": st.session_state["language"], "kb": st.session_state["kb"]}


def language_switch(visit: Visit) -> None:
    """The name of the product and the language of the page, remembered."""
    st.html(f"<style>{render.fixed_words(visit.t)}</style>")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html('<div class="gr-brand">glm-rag</div>')
        st.segmented_control(
            visit.t("language"),
            list(LANGUAGE_NAMES),
            required=True,
            format_func=_language_name,
            key="language",
            on_change=_remember,
            args=(visit, "lang", "language"),
            label_visibility="collapsed",
        )


def _language_name(language: Language) -> str:
    return LANGUAGE_NAMES[language]


def knowledge_base_choice(visit: Visit) -> None:
    """The chosen knowledge base; a name that is typed in is made with the first document."""
    names = backend.list_knowledge_bases(visit.settings)
    st.selectbox(
        visit.t("kb"),
        sorted({*names, visit.kb}),
        key="kb",
        help=visit.t("kb_help"),
        accept_new_options=True,
        on_change=_remember,
        args=(visit, "kb", "kb"),
    )


def choose_kb(visit: Visit, name: str) -> None:
    """Make `name` the chosen knowledge base from the next run of the page on."""
    st.query_params["kb"] = name
    visit.store.set_preferences(visit.profile, {"kb": name})


def _remember(visit: Visit, parameter: str, key: str) -> None:
    if value := (st.session_state[key] or "").strip():
        st.query_params[parameter] = value
        visit.store.set_preferences(visit.profile, {key: value})
