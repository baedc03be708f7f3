"""Statistics of a knowledge base, and the check of everything in it."""

from __future__ import annotations

import streamlit as st

from glm_rag.errors import GlmRagError
from glm_rag.types import KnowledgeBaseInfo
from glm_rag_ui import charts, failures, passages, session, shelf, tables
from glm_rag_ui.shell import Visit

_MOST_KINDS = 8


def section(visit: Visit, info: KnowledgeBaseInfo) -> None:
    """Totals, and how they are spread."""
    t = visit.t
    documents = shelf.documents(visit.settings, visit.kb)
    st.html(passages.tiles(info, sum(item.num_characters for item in documents), t))
    if documents:
        left, right = st.columns(2, gap="medium")
        with left:
            st.html(f'<h3 class="gr-section">{t("chart_kinds")}</h3>')
            counts = tables.kinds(documents, _MOST_KINDS, t)
            st.vega_lite_chart(charts.bars(counts, t("column_kind"), t("tile_documents")))
        with right:
            st.html(f'<h3 class="gr-section">{t("chart_languages")}</h3>')
            counts = tables.languages(documents, t)
            st.vega_lite_chart(charts.bars(counts, t("filter_language"), t("tile_documents")))
            st.html(f'<h3 class="gr-section">{t("chart_passages")}</h3>')
            counts = tables.passages_per_document(documents)
            st.vega_lite_chart(charts.bars(counts, t("tile_passages"), t("tile_documents")))
    check(visit)


def check(visit: Visit) -> None:
    """Prove everything that is stored against the texts."""
    t, key = visit.t, "kb-verified"
    st.html(f'<h3 class="gr-section">{t("check")}</h3><p class="gr-figures">{t("check_text")}</p>')
    if st.button(t("check_now"), icon=":material/fact_check:"):
        bar = st.progress(0.0, text=t("checking"))

        def tell(done: int, total: int) -> None:
            bar.progress(min(1.0, done / total) if total else 0.0, text=t("checking"))

        try:
            report = session.knowledge_base(visit.settings, visit.kb).verify(on_progress=tell)
        except GlmRagError as error:
            bar.empty()
            st.html(failures.notice(error, t))
            return
        bar.empty()
        st.session_state[key] = (visit.kb, report)
    name, report = st.session_state.get(key, ("", None))
    if name == visit.kb and report is not None:
        st.html(passages.verified(report, t))
