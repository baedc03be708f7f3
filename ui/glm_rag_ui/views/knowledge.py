"""Knowledge bases and their documents."""

from __future__ import annotations

import streamlit as st

from glm_rag_ui.shell import Visit


def page(visit: Visit) -> None:
    """Draw the page."""
    st.html(f"<h2>{visit.t('nav_knowledge')}</h2>")
