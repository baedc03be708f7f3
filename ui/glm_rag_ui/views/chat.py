"""The chat over one knowledge base."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import streamlit as st

from glm_rag import suggestions
from glm_rag.errors import GlmRagError, KnowledgeBaseNotFoundError
from glm_rag.samples import handbook_folder
from glm_rag.types import (
    Conversation,
    KnowledgeBaseInfo,
    Language,
    SavedTurn,
)
from glm_rag_ui import (
    backend,
    choices,
    failures,
    filters,
    intake,
    render,
    runs,
    session,
    shelf,
    shell,
    uploads,
)
from glm_rag_ui.runs import Batch
from glm_rag_ui.sections import adding
from glm_rag_ui.shell import Visit
from glm_rag_ui.uploads import Upload
from glm_rag_ui.views import conversations, turns, welcome

if TYPE_CHECKING:
    from streamlit.elements.widgets.chat import ChatInputValue

    from glm_rag.knowledge.base import KnowledgeBase

log = logging.getLogger(__name__)

# The knowledge base that this tab's visitor added files to without a question.
_READING = "reading"


@dataclass(frozen=True, slots=True)
class Request:
    """What the visitor wants now: a question, files to take in, or both."""

    question: str = ""
    files: Sequence[Upload] = ()


def page(visit: Visit) -> None:
    """Draw the page."""
    if not backend.has_model(visit.settings):
        welcome.page(visit)
        return
    stock = stock_of(visit)
    filled = stock is not None and stock.num_documents > 0
    # Named here, the place is ours to scroll: by itself Streamlit glides to the end of the page
    # whenever a source is opened. The style sheet follows an answer while it is written.
    with st.bottom:
        said = st.chat_input(
            visit.t("ask_placeholder", kb=visit.kb) if filled else visit.t("ask_empty"),
            key="question",
            submit_mode="stop",
            accept_file="multiple",
            file_type=list(uploads.FILE_TYPES),
        )
    request = requested(said)
    conversation = conversations.current(visit)
    before = conversation.turns if conversation else ()
    turn = None
    if request.question and (filled or request.files):
        conversation, turn = register(visit, conversation, request.question)
    with st.sidebar:
        conversations.panel(visit, conversation.id if conversation else None)
        asked_of = scope(visit) if filled else visit
        side(visit, stock)
    if not (before or turn):
        before_the_first(visit, stock)
    for number, earlier in enumerate(before, 1):
        turns.show(visit, earlier, last=turn is None and number == len(before))
    if turn is not None:
        answer(asked_of, turn, request.files, before)
    elif request.files:
        only_files(visit, request.files)
    elif st.session_state.get(_READING) == visit.kb:
        with st.container(key="reading"):
            adding.running(visit)
    elif request.question:
        st.html(render.notice("info", visit.t("ask_nothing"), request.question))
    if conversation is not None:
        end = render.scroll_to(".gr-end", conversation.id, "end")
        st.html(end, unsafe_allow_javascript=True)


def stock_of(visit: Visit) -> KnowledgeBaseInfo | None:
    """Totals of the knowledge base; None where there is none of that name yet."""
    try:
        return session.knowledge_base(visit.settings, visit.kb).info()
    except KnowledgeBaseNotFoundError:
        return None


def requested(said: str | ChatInputValue | None) -> Request:
    """What came from the input line, a suggestion, or a question that was sent again."""
    asked = st.session_state.pop(turns.ASKED, "")
    if said is None or isinstance(said, str):
        return Request((said or asked).strip())
    return Request((said.text or "").strip(), said.files)


def register(
    visit: Visit, conversation: Conversation | None, question: str
) -> tuple[Conversation, SavedTurn]:
    """Keep a question before its first word: a stop or a reload ends this script at any line."""
    run = runs.SHARED.get(visit.settings.home, visit.kb)
    if run is None or run.is_over:
        st.session_state.pop(_READING, None)
    if conversation is None:
        conversation = visit.store.start(visit.profile, visit.kb)
        conversations.enter(visit.kb, conversation.id)
    unread = not backend.reads(visit.settings, question)
    return conversation, visit.store.add_turn(
        visit.profile, conversation.id, question, unread=unread
    )


# ---------------------------------------------------------------- before the first question


def scope(visit: Visit) -> Visit:
    """The visit with the search limited as the visitor chose."""
    with st.expander(visit.t("filter_title"), icon=":material/filter_alt:"):
        documents = shelf.documents(visit.settings, visit.kb)
        where = filters.choose(documents, visit.t, f"scope-{visit.kb}", narrow=True)
    if where is None:
        return visit
    retrieval = visit.settings.retrieval.model_copy(update={"filter": where})
    return replace(visit, settings=visit.settings.model_copy(update={"retrieval": retrieval}))


def side(visit: Visit, stock: KnowledgeBaseInfo | None) -> None:
    """What the knowledge base holds; which model answers; that nothing leaves the machine."""
    t = visit.t
    held = [t("documents", n=stock.num_documents if stock else 0)]
    if stock is not None and stock.num_failures:
        held.append(t("report_failed", n=stock.num_failures))
    with st.container(key="stock", gap=None):
        st.page_link(
            st.session_state["pages"]["knowledge"],
            label=" · ".join(held),
            icon=":material/folder_open:",
            query_params={"lang": visit.language, "kb": visit.kb},
        )
        server = choices.server(visit.settings)
        name = render.escape(render.file_name(choices.model_name(visit.settings)))
        small = f"<br>{t('small_model')}" if backend.SMALL_MODEL in name else ""
        where = t("remote", address=render.escape(server)) if server else t("local")
        st.html(f'<p class="gr-foot">{t("model")} <b>{name}</b>{small}<br>{where}</p>')


def before_the_first(visit: Visit, stock: KnowledgeBaseInfo | None) -> None:
    """What could be asked, or how documents get here."""
    if stock is None or not stock.num_documents:
        empty_panel(visit)
        return
    st.html(render.hero(visit.kb, visit.t("documents", n=stock.num_documents), visit.t))
    suggest(visit, stock)


def suggest(visit: Visit, stock: KnowledgeBaseInfo) -> None:
    """Questions that the documents answer, one click each."""
    identity = backend.identity(visit.settings, visit.kb)
    state = f"{identity} {stock.num_documents} {stock.num_chunks}"
    try:
        kb = session.knowledge_base(visit.settings, visit.kb)
        found = _suggested(state, visit.language, kb)
    except GlmRagError:
        log.warning("no questions could be suggested", exc_info=True)
        return
    with st.container(key="suggestions"):
        for number, question in enumerate(found):
            st.button(
                render.label(question, 140),
                key=f"suggested-{number}",
                on_click=turns.ask,
                args=(question,),
                width="stretch",
            )


@st.cache_resource(show_spinner=False, max_entries=32)
def _suggested(state: str, language: Language, _kb: KnowledgeBase) -> tuple[str, ...]:
    return tuple(suggestions.suggest_questions(_kb, language))


def empty_panel(visit: Visit) -> None:
    """Say how to fill the knowledge base and offer the sample handbook."""
    t = visit.t
    st.html(render.panel(t("empty"), t("empty_chat")))
    with st.container(horizontal=True, key="first-steps"):
        if st.button(t("sample_button"), type="primary", icon=":material/menu_book:"):
            st.session_state[_READING] = visit.kb
            adding.begin(visit, Batch(visit.settings, (handbook_folder(),)))
        if st.button(t("to_knowledge"), icon=":material/library_books:"):
            shell.go("knowledge")


# ---------------------------------------------------------------- answers and files


def answer(
    visit: Visit, turn: SavedTurn, files: Sequence[Upload], before: Sequence[SavedTurn]
) -> None:
    """Ask, once files are taken in, and show the answer while it is made."""
    with st.chat_message("user"):
        st.html(render.plain(turn.question) + render.files([file.name for file in files]))
        turns.edit_button(visit, turn)
    with st.chat_message("assistant"):
        try:
            taken = intake.begin(visit.settings, visit.kb, files) if files else None
        except (GlmRagError, OSError) as error:
            log.exception("files of a question could not be kept")
            failed = replace(turn, status="failed", error=f"{type(error).__name__}: {error}")
            visit.store.save_turn(visit.profile, failed)
            st.html(turns.html(failed, visit.t))
            return
        last = next((item.answer for item in reversed(before) if item.answer is not None), None)
        turns.watch(visit, turns.begin(visit, turn, last, taken))


def only_files(visit: Visit, files: Sequence[Upload]) -> None:
    """Have files read that came without a question."""
    try:
        intake.begin(visit.settings, visit.kb, files)
    except (GlmRagError, OSError) as error:
        st.html(failures.notice(error, visit.t))
        return
    st.session_state[_READING] = visit.kb
    st.rerun()
