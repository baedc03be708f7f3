"""A document: its whole text around a passage, and the page of a PDF beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from glm_rag.types import DocumentInfo, ExtractedDocument
from glm_rag_ui import pdf_page, reader, render, session
from glm_rag_ui.evidence import Span
from glm_rag_ui.i18n import Translate
from glm_rag_ui.reader import Place
from glm_rag_ui.shell import Visit

if TYPE_CHECKING:
    from langchain_core.documents import Document

AT = "document_at"


def page(visit: Visit) -> None:
    """Draw the page."""
    t = visit.t
    place = reader.place(dict(st.query_params))
    if place is None or not place.source:
        st.html(render.notice("info", t("document_none" if place else "document_bad")))
        return
    # Only what the knowledge base knows is read: the address names no files.
    kb = session.knowledge_base(visit.settings, visit.kb)
    info = kb.get_document(place.source)
    if info is None:
        st.html(render.notice("warn", t("document_unknown", kb=visit.kb)))
        return
    document = kb.get_extracted(place.source)[0]
    chunks = kb.get_chunks(place.source)
    st.html(reader.head(info, headings_at(chunks, place), len(document.pages), t))
    if info.media_type != pdf_page.MEDIA_TYPE:
        text(document, place, t)
        return
    left, right = st.columns([11, 9], gap="medium")
    with left:
        text(document, place, t)
    with right:
        picture(info, document, place, t)


def headings_at(chunks: Sequence[Document], place: Place) -> Sequence[str]:
    """The headings above the passage, from the chunk that holds its beginning."""
    for chunk in chunks:
        metadata = chunk.metadata
        if metadata.get("start", 0) <= place.start < metadata.get("end", 0):
            return [str(item) for item in metadata.get("headings") or ()]
    return ()


def text(document: ExtractedDocument, place: Place, t: Translate) -> None:
    """A part of the text: the one around the passage, or the one chosen by the buttons."""
    whole, passage = document.text, (place.start, place.end)
    if place.start >= max(len(whole), 1) or place.end > len(whole):
        st.html(render.notice("warn", t("document_beyond")))
        passage = (0, 0)
    name, chosen = st.session_state.get(AT, (None, (0, 0)))
    part = chosen if name == place else reader.around(whole, passage)
    st.html(reader.text_part(document, part, passage, t))
    begin, stop = part
    if passage[0] < passage[1]:
        found = render.scroll_to("mark#passage", f"{begin} {passage[0]} {place.source}")
        st.html(found, unsafe_allow_javascript=True)
    if stop - begin >= len(whole):
        return
    with st.container(horizontal=True, vertical_alignment="center", key="parts"):
        st.button(
            t("part_before"),
            icon=":material/arrow_upward:",
            disabled=begin <= 0,
            on_click=_go,
            args=(place, reader.part_before(whole, begin)),
        )
        st.button(
            t("part_after"),
            icon=":material/arrow_downward:",
            disabled=stop >= len(whole),
            on_click=_go,
            args=(place, reader.part_from(whole, stop)),
        )
        if passage[1] and not begin <= passage[0] < stop:
            home = reader.around(whole, passage)
            st.button(t("part_passage"), type="tertiary", on_click=_go, args=(place, home))
        where = t("part", start=begin + 1, end=stop, n=len(whole))
        st.html(f'<p class="gr-figures">{where}</p>')


def _go(place: Place, part: Span) -> None:
    st.session_state[AT] = (place, part)


def picture(info: DocumentInfo, document: ExtractedDocument, place: Place, t: Translate) -> None:
    """The page of a PDF that holds the passage, or another one chosen by the buttons."""
    wanted = st.query_params.get("page", "")
    here = reader.page_at(document.pages, place.start) or 1
    number = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 7 else here
    try:
        path = pdf_page.file_of(info)
        drawn = _drawn(str(path), info.sha256, number)
    except pdf_page.NoPicture as error:
        st.html(render.notice("info", t(error.key)))
        return
    st.image(drawn.png, width="stretch")
    with st.container(horizontal=True, vertical_alignment="center", key="pages"):
        for step, key, icon in ((-1, "page_before", "left"), (1, "page_after", "right")):
            st.button(
                t(key),
                icon=f":material/chevron_{icon}:",
                disabled=not 1 <= number + step <= drawn.num_pages,
                on_click=_turn_to,
                args=(number + step,),
            )
        st.html(f'<p class="gr-figures">{t("page_of", n=number, of=drawn.num_pages)}</p>')


def _turn_to(number: int) -> None:
    st.query_params["page"] = str(number)


@st.cache_resource(show_spinner=False, max_entries=24)
def _drawn(path: str, sha256: str, number: int) -> pdf_page.Picture:  # the key
    return pdf_page.draw(Path(path), number)
