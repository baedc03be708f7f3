"""The entry: Streamlit runs this after every interaction; it draws the chosen page."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from glm_rag.errors import GlmRagError
from glm_rag_ui import failures, shell
from glm_rag_ui.i18n import translator
from glm_rag_ui.views import chat

HERE = Path(__file__).parent


def main() -> None:
    """Draw the page once."""
    st.set_page_config(
        page_title="glm-rag", page_icon=str(HERE / "icon.png"), initial_sidebar_state="auto"
    )
    for sheet in sorted((HERE / "styles").glob("*.css")):
        st.html(sheet)
    try:
        visit = shell.begin()
        pages = [st.Page(partial(chat.page, visit), title="Chat", url_path="chat", default=True)]
        st.navigation(pages, position="hidden").run()
    except GlmRagError as error:
        st.html(failures.notice(error, translator("en")))


if __name__ == "__main__":
    main()
