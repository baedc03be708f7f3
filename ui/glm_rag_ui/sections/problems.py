"""Files that are not in the knowledge base, and why."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from glm_rag.errors import GlmRagError
from glm_rag.types import IngestFailure
from glm_rag_ui import failures, render, session, shelf, tables
from glm_rag_ui.sections import adding
from glm_rag_ui.shell import Visit


def section(visit: Visit) -> None:
    """The table of failures; try again, or take off the list."""
    t = visit.t
    found = session.knowledge_base(visit.settings, visit.kb).failures()
    if not found:
        st.html(render.notice("done", t("no_failures")))
        return
    chosen = table(visit, found)
    with st.container(horizontal=True):
        again = t("try_again") if chosen else t("try_all_again")
        if st.button(again, icon=":material/refresh:"):
            wanted = dict.fromkeys(shelf.file_of(f.source) for f in chosen or found)
            if paths := tuple(path for path in wanted if path is not None):
                adding.read_again(visit, paths)
        if st.button(
            t("forget_failure"),
            icon=":material/playlist_remove:",
            disabled=not chosen,
            help=t("forget_failure_help"),
        ):
            try:
                for failed in chosen:
                    shelf.forget_failure(visit.settings, visit.kb, failed.source)
            except GlmRagError as error:
                st.html(failures.notice(error, t))
                return
            st.rerun()


def table(visit: Visit, found: Sequence[IngestFailure]) -> list[IngestFailure]:
    """One row for each; those that are chosen."""
    t = visit.t
    event = st.dataframe(
        tables.failure_rows(found, t),
        column_config={
            "file": st.column_config.TextColumn(t("column_file"), width="medium"),
            "reason": st.column_config.TextColumn(t("column_reason"), width="large"),
            "folder": st.column_config.TextColumn(t("column_folder")),
        },
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        key=f"kb-failures-{hash(tuple(failed.source for failed in found))}",
    )
    return [found[row] for row in event.selection.rows if row < len(found)]
