"""A map of the passages, and where a question's hits lie on it."""

from __future__ import annotations

import streamlit as st

from glm_rag.errors import GlmRagError
from glm_rag_ui import charts, failures, render, shelf
from glm_rag_ui.shell import Visit

_HITS = 8


def section(visit: Visit) -> None:
    """Points near each other say something similar."""
    t = visit.t
    sketches, places, _ = shelf.picture(visit.settings, visit.kb)
    if len(sketches) < 3:
        st.html(render.notice("info", t("map_too_few")))
        return
    question = st.text_input(
        t("map_question"),
        placeholder=t("map_question"),
        icon=":material/search:",
        label_visibility="collapsed",
        key="kb-map-question",
    )
    hits = []
    if question and question.strip():
        try:
            hits = shelf.hits_on_map(visit.settings, visit.kb, question.strip(), _HITS)
        except GlmRagError as error:
            st.html(failures.notice(error, t))
        else:
            if not hits:
                st.html(render.notice("info", t("map_no_hits")))
    words = {
        "document": t("column_title"),
        "passage": t("map_passage"),
        "page": t("map_page"),
        "others": t("others"),
        "hit": t("map_hit"),
    }
    st.vega_lite_chart(charts.passage_map(sketches, places, hits, words))
    st.html(f'<p class="gr-figures">{t("map_text", n=len(sketches))}</p>')
