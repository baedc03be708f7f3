"""The entry: Streamlit runs this after every interaction; it draws the chosen page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from glm_rag.errors import GlmRagError
from glm_rag_ui import failures, shell
from glm_rag_ui.i18n import choose_language, translator
from glm_rag_ui.shell import View, Visit
from glm_rag_ui.views import chat, document, knowledge, retrieval, settings

HERE = Path(__file__).parent


VIEWS: dict[View, Callable[[Visit], None]] = {
    "chat": chat.page,
    "knowledge": knowledge.page,
    "retrieval": retrieval.page,
    "settings": settings.page,
    "document": document.page,
}


def main() -> None:
    """Draw the page once."""
    st.set_page_config(page_icon=str(HERE / "icon.png"), initial_sidebar_state="auto")
    for sheet in sorted((HERE / "styles").glob("*.css")):
        st.html(sheet)
    try:
        visit = shell.begin()
        chosen = shell.navigation(visit, VIEWS)
        shell.side_panel(visit)
        chosen.run()
    except GlmRagError as error:
        language = choose_language(st.query_params.get("lang"), st.context.locale)
        st.html(failures.notice(error, translator(language)))


if __name__ == "__main__":
    main()
