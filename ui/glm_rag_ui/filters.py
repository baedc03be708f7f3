"""Which documents a question is asked of: a filter that a visitor puts together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import streamlit as st

from glm_rag.types import DocumentInfo
from glm_rag_ui import render
from glm_rag_ui.choices import labelled
from glm_rag_ui.i18n import Translate
from glm_rag_ui.tables import LANGUAGES, cell

# Longer lists are slow to send, and nobody scrolls through them.
_MOST_DOCUMENTS = 2000
_MOST_FOLDERS = 200


def choose(
    documents: Sequence[DocumentInfo], t: Translate, key: str, *, narrow: bool = False
) -> dict[str, Any] | None:
    """Draw the choices and give the filter they mean, as docs/retrieval.md has it.

    Args:
        documents: of the knowledge base.
        key: prefix of the widgets' keys, one for each place on the pages.
        narrow: whether all stand in one column.

    Returns:
        None where everything may be found.
    """
    titles = names(documents[:_MOST_DOCUMENTS])
    left, right = (st.container(), st.container()) if narrow else st.columns(2)
    with left:
        sources = st.multiselect(
            t("filter_documents"),
            list(titles),
            format_func=lambda source: titles.get(source, source),
            placeholder=t("filter_any"),
            key=f"{key}-sources",
        )
        folder = st.selectbox(
            t("filter_folder"),
            folders(documents)[:_MOST_FOLDERS],
            index=None,
            format_func=cell,
            placeholder=t("filter_any"),
            accept_new_options=True,
            key=f"{key}-folder",
            help=t("filter_folder_help"),
        )
    with right:
        since = st.date_input(
            t("filter_since"), value=None, format="YYYY-MM-DD", key=f"{key}-since"
        )
        language = st.pills(
            t("filter_language"),
            list(LANGUAGES),
            format_func=lambda name: t(LANGUAGES[name]),
            key=f"{key}-language",
        )
    return where(sources, folder, since.isoformat() if since else None, language)


def where(
    sources: Sequence[str], folder: str | None, since: str | None, language: str | None
) -> dict[str, Any] | None:
    """The mapping that the choices mean; None without any."""
    found: dict[str, Any] = {}
    if sources:
        found["source"] = list(sources)
    if folder and folder.strip():
        found["path"] = {"prefix": folder.strip()}
    if since:
        found["mtime"] = {"gte": since}
    if language:
        found["document_language"] = language
    return found or None


def names(documents: Sequence[DocumentInfo]) -> dict[str, str]:
    """What each source is called in a list: by its title, which some share, then by its file."""
    titles = {info.source: cell(info.title) for info in documents}
    counts = Counter(titles.values())

    def describe(source: str) -> str:
        title = titles[source]
        return title if counts[title] == 1 else f"{title} · {cell(render.file_name(source))}"

    return labelled(titles, describe)


def folders(documents: Sequence[DocumentInfo]) -> list[str]:
    """The folders that documents lie in, sorted; without those of no file."""
    from glm_rag_ingest.prune import path_of

    paths = (path_of(info.source) for info in documents)
    return sorted(
        {os.fsencode(p.parent).decode("utf-8", "replace") for p in paths if p is not None}
    )
