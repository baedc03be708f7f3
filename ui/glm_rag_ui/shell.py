"""What every page shares: whose visit it is, the language, the chosen knowledge base."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from glm_rag.config import Settings
from glm_rag.types import IngestProgress, Language
from glm_rag_ui import backend, render, session
from glm_rag_ui.i18n import LANGUAGE_NAMES, Translate, choose_language, translator


@dataclass(frozen=True, slots=True)
class Visit:
    """One run of a page for one visitor.

    Attributes:
        settings: with the visitor's own choices in place.
        kb: name of the chosen knowledge base; it may not be there yet.
        t: the words of the page in `language`.
    """

    settings: Settings
    kb: str
    language: Language
    t: Translate


def begin() -> Visit:
    """Draw what stands at the top of every page's side panel.

    Raises:
        GlmRagError: the settings cannot be used.
    """
    arguments = session.parse_arguments(sys.argv[1:])
    language = choose_language(st.query_params.get("lang"), st.context.locale)
    t = translator(language)
    with st.sidebar:
        language_switch(language, t)
    settings = session.settings(arguments.config)
    with st.sidebar:
        kb = knowledge_base_choice(settings, arguments.kb, t)
    return Visit(settings, kb, language, t)


def language_switch(language: Language, t: Translate) -> None:
    """The name of the product and the language of the page, remembered in its address."""
    st.html(f"<style>{render.fixed_words(t)}</style>")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html('<div class="gr-brand">glm-rag</div>')
        st.segmented_control(
            t("language"),
            list(LANGUAGE_NAMES),
            default=language,
            required=True,
            format_func=_language_name,
            key="language",
            on_change=_remember_language,
            label_visibility="collapsed",
        )


def _language_name(language: Language) -> str:
    return LANGUAGE_NAMES[language]


def _remember_language() -> None:
    st.query_params["lang"] = st.session_state["language"]


def knowledge_base_choice(settings: Settings, preferred: str | None, t: Translate) -> str:
    """The chosen knowledge base; a name that is typed in is made with the first document."""
    names = backend.list_knowledge_bases(settings)
    current = st.query_params.get("kb") or preferred or (names or [session.DEFAULT_KB])[0]
    options = sorted({*names, current})
    chosen = st.selectbox(
        t("kb"),
        options,
        index=options.index(current),
        key="kb",
        help=t("kb_help"),
        accept_new_options=True,
        on_change=_remember_kb,
    )
    return (chosen or current).strip()


def _remember_kb() -> None:
    if name := st.session_state["kb"]:
        st.query_params["kb"] = name.strip()


def ingest(settings: Settings, kb: str, paths: Sequence[Path], t: Translate) -> None:
    """Read files into the knowledge base under a progress bar, then draw the page anew."""
    bar = st.progress(0.0, text=t("ingesting"))
    current = st.empty()

    def show(progress: IngestProgress) -> None:
        share = progress.done / progress.total if progress.total else 0.0
        count = t("ingest_count", done=progress.done, total=progress.total)
        bar.progress(min(share, 1.0), text=f"{t('ingesting')} · {count}")
        current.html(render.plain(render.file_name(progress.current) if progress.current else " "))

    session.remember_report(kb, backend.ingest(settings, kb, paths, show))
    st.rerun()
