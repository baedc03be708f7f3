"""The chat over one knowledge base."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from contextlib import closing
from typing import cast

import streamlit as st

from glm_rag.config import Settings
from glm_rag.errors import GlmRagError
from glm_rag.samples import handbook_folder
from glm_rag.types import AnswerDelta
from glm_rag_ui import backend, evidence, failures, render, session, uploads
from glm_rag_ui.i18n import Translate
from glm_rag_ui.session import Turn
from glm_rag_ui.shell import Visit, ingest

log = logging.getLogger(__name__)

# Each update sends the whole answer so far: more often than this is not seen, only paid for.
REFRESH_SECONDS = 0.05
FOLLOW_SECONDS = 0.15


def page(visit: Visit) -> None:
    """Draw the page."""
    settings, kb, t = visit.settings, visit.kb, visit.t
    stock = session.stock(settings, kb)
    with st.sidebar:
        upload_panel(settings, kb, t)
        stock_panel(stock, kb, t)
        footer(settings, kb, t)
    body(settings, kb, stock, t)


def upload_panel(settings: Settings, kb: str, t: Translate) -> None:
    """Files dropped here go into the knowledge base at once."""
    files = st.file_uploader(
        t("upload"),
        type=list(uploads.FILE_TYPES),
        accept_multiple_files=True,
        key=f"files-{session.upload_round()}",
        help=t("upload_help"),
    )
    if files:
        target = uploads.folder(settings.home, kb)
        ingest(settings, kb, [uploads.save(file, target) for file in files], t)


def stock_panel(stock: session.Stock, kb: str, t: Translate) -> None:
    """What is in the knowledge base, what is not and why."""
    report = session.last_report(kb)
    if report is not None:
        st.html(evidence.report(report, t))
    if stock.documents:
        with st.expander(t("documents", n=len(stock.documents))):
            st.html(evidence.document_list(stock.documents, t))
    if stock.failures:
        with st.expander(t("failures", n=len(stock.failures))):
            st.html(evidence.failure_list(stock.failures, t))


def footer(settings: Settings, kb: str, t: Translate) -> None:
    """Start over; which model answers; that nothing leaves the machine."""
    st.button(
        t("new_conversation"),
        on_click=session.conversation(kb).clear,
        icon=":material/edit_square:",
        width="stretch",
    )
    name = render.escape(render.file_name(settings.model.name))
    small = f"<br>{t('small_model')}" if backend.SMALL_MODEL in name else ""
    st.html(f'<p class="gr-foot">{t("model")} <b>{name}</b>{small}<br>{t("local")}</p>')


def body(settings: Settings, kb: str, stock: session.Stock, t: Translate) -> None:
    """The conversation, or what has to be done before there can be one."""
    ready = backend.has_model(settings)
    turns = session.conversation(kb)
    # Named here, the place is ours to scroll: by itself Streamlit glides to the end of the page
    # whenever a source is opened. The style sheet follows an answer while it is written.
    with st.bottom:
        question = st.chat_input(
            _placeholder(kb, ready, bool(stock.documents), t),
            key="question",
            disabled=not (ready and stock.documents),
            submit_mode="stop",
        )
    if not ready:
        model_panel(settings, t)
    elif not stock.documents:
        empty_panel(settings, kb, t)
    elif not (turns or question):
        st.html(render.hero(kb, t("documents", n=len(stock.documents)), t))
    for number, turn in enumerate(turns):
        show_turn(turn, f"a{number}", t)
    if question and question.strip():
        answer(settings, kb, question.strip(), turns, t)


def _placeholder(kb: str, ready: bool, filled: bool, t: Translate) -> str:
    if not ready:
        return t("ask_no_model")
    return t("ask_placeholder", kb=kb) if filled else t("ask_disabled")


def show_turn(turn: Turn, key: str, t: Translate) -> None:
    """A question and its answer, from memory."""
    with st.chat_message("user"):
        st.html(render.plain(turn.question))
    with st.chat_message("assistant"):
        st.html(finished(turn, key, t))


def answer(settings: Settings, kb: str, question: str, turns: list[Turn], t: Translate) -> None:
    """Ask, and show the answer while it is made."""
    before = session.history(turns)
    turn = Turn(question, unread=not backend.reads(settings, question))
    # Kept before the first word: a stop or a reload ends this script at any line.
    turns.append(turn)
    with st.chat_message("user"):
        st.html(render.plain(question))
    message, end = st.chat_message("assistant"), st.empty()
    with message:
        place = st.empty()
        end.html('<i class="gr-end"></i>')
        place.html(render.waiting(t))
        shown = time.monotonic()
        try:
            assistant = session.assistant(settings, kb)
            stream = assistant.stream(question, history=before)
            with closing(cast("Generator[AnswerDelta]", stream)) as deltas:
                for delta in deltas:
                    turn.text += delta.text
                    turn.answer = delta.answer or turn.answer
                    if turn.text and time.monotonic() - shown >= REFRESH_SECONDS:
                        place.html(live(turn.text))
                        shown = time.monotonic()
        except GlmRagError as error:
            turn.error = error
        except Exception as error:  # whatever broke: the part that came stays on the page
            log.exception("the answer broke off")
            turn.error = error
        place.html(finished(turn, f"a{len(turns) - 1}", t))
    # The page follows only while the script runs: let it reach the end of the finished answer.
    time.sleep(FOLLOW_SECONDS)


def live(text: str) -> str:
    """The HTML of an answer that is still being written."""
    return render.answer_block(render.answer_body(text), live=True)


def finished(turn: Turn, key: str, t: Translate) -> str:
    """The HTML of an answer that came to its end, broke off or was stopped."""
    if turn.answer is not None:
        unread = render.notice("warn", t("unread")) if turn.unread else ""
        return unread + evidence.answer(turn.answer, key, t)
    body = render.answer_block(render.answer_body(turn.text)) if turn.text else ""
    if turn.error is None:
        return body + render.notice("info", t("stopped"))
    return body + failures.notice(turn.error, t, kept=bool(turn.text))


def model_panel(settings: Settings, t: Translate) -> None:
    """Say which model is missing and offer to fetch the small one."""
    name = settings.model.name
    command = f"glm-rag model pull {name}"
    st.html(
        render.panel(
            t("no_model"),
            t("no_model_text", name=name),
            t("no_model_small"),
            label=t("no_model_shell"),
            code=command,
        )
    )
    if st.button(t("pull_button"), type="primary", icon=":material/download:"):
        bar = st.progress(0.0, text=t("pulling"))
        for step, done, total in backend.pull_model(settings, backend.SMALL_MODEL):
            words = t("converting") if step == "converting" else t("pulling")
            bar.progress(min(done / total, 1.0) if total else 0.0, text=words)
        st.session_state["model"] = backend.SMALL_MODEL
        st.rerun()


def empty_panel(settings: Settings, kb: str, t: Translate) -> None:
    """Say how to fill the knowledge base and offer the sample handbook."""
    st.html(render.panel(t("empty"), t("empty_text")))
    if st.button(t("sample_button"), type="primary", icon=":material/menu_book:"):
        ingest(settings, kb, [handbook_folder()], t)
