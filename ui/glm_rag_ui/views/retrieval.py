"""The retrieval test: what a question finds, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from glm_rag.errors import GlmRagError, KnowledgeBaseNotFoundError
from glm_rag_ui import failures, filters, ranks, render, shelf
from glm_rag_ui.shell import Visit

if TYPE_CHECKING:
    from glm_rag.retrieval.explain import Explanation

_MOST = 50


def page(visit: Visit) -> None:
    """Draw the page."""
    t = visit.t
    st.html(
        f'<h1 class="gr-wide">{t("nav_retrieval")}</h1><p class="gr-figures">{t("test_text")}</p>'
    )
    try:
        documents = shelf.documents(visit.settings, visit.kb)
    except KnowledgeBaseNotFoundError:
        documents = []
    if not documents:
        st.html(render.panel(t("empty"), t("empty_test")))
        return
    with st.container(horizontal=True, vertical_alignment="bottom", key="test-question-row"):
        question = st.text_input(
            t("test_question"),
            placeholder=t("test_question"),
            icon=":material/search:",
            key="test-question",
        ).strip()
        usual = visit.settings.retrieval.k
        k = st.number_input(t("test_k"), 1, max(_MOST, usual), usual, key="test-k", width=130)
    with st.expander(t("filter_title"), icon=":material/filter_alt:"):
        where = filters.choose(documents, t, "test-filter")
    if not question:
        return
    try:
        with st.spinner(t("searching")):
            told = explained(visit, question, int(k), where)
    except GlmRagError as error:
        st.html(failures.notice(error, t))
        return
    result(visit, told, int(k))


def explained(visit: Visit, question: str, k: int, where: dict[str, Any] | None) -> Explanation:
    """What the question finds; kept until something else is asked or the documents change."""
    asked = shelf.asked(visit.settings, visit.kb, question, k, where)
    kept = st.session_state.get("explained")
    if kept is None or kept[0] != asked:
        kept = (asked, shelf.explained(visit.settings, visit.kb, question, k, where))
        st.session_state["explained"] = kept
    told: Explanation = kept[1]
    return told


def result(visit: Visit, told: Explanation, k: int) -> None:
    """The decision, the words, the orders."""
    t, retrieval = visit.t, visit.settings.retrieval
    st.html(ranks.verdict(told, retrieval, t) + ranks.terms(told, t))
    if not told.candidates:
        return
    st.html(ranks.columns(told, k, retrieval, t))
    if ranks.changes_order(retrieval):
        st.html(f'<h3 class="gr-section">{t("final")}</h3>' + ranks.final(told, t))
    else:
        st.html(f'<p class="gr-figures">{t("no_rerank")}</p>')
