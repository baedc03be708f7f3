"""One question and its answer: shown from the store, or while it is written; what can be done."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st
from streamlit.runtime.scriptrunner import StopException

from glm_rag.types import Answer, SavedTurn, Vote
from glm_rag_ui import answering, evidence, failures, render, session, shell
from glm_rag_ui.answering import Answering
from glm_rag_ui.i18n import Translate
from glm_rag_ui.intake import Intake
from glm_rag_ui.sections import adding
from glm_rag_ui.shell import Visit

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

# Each update sends the whole answer so far: more often than this is not seen, only paid for.
REFRESH_SECONDS = 0.05
# A script hears of the stop button only when it draws.
LISTEN_SECONDS = 0.25
FOLLOW_SECONDS = 0.15

# What was asked by other means than the input line, for the run of the page that follows.
ASKED = "asked"
_EDITING = "editing"
_VOTES: dict[int | None, Vote | None] = {0: "down", 1: "up", None: None}


def ask(question: str) -> None:
    """Ask in the next run of the page."""
    st.session_state[ASKED] = question


def show(visit: Visit, turn: SavedTurn, *, last: bool) -> None:
    """A question and its answer, which may still be on its way."""
    with st.chat_message("user"):
        if st.session_state.get(_EDITING) == turn.id:
            _editor(visit, turn)
        else:
            st.html(render.plain(turn.question) + _attached(turn))
            edit_button(visit, turn)
    with st.chat_message("assistant"):
        running = answering.find(turn) if turn.status == "running" else None
        if running is not None and not running.is_stopping:
            watch(visit, running)
            return
        if running is not None:
            turn = running.turn
        elsewhere = turn.status == "running" and running is None
        whole = html(turn, visit.t, shell.link, elsewhere=elsewhere)
        st.html(taken_in(turn, visit.t) + whole)
        actions(visit, turn, last=last)
        if last:
            st.html('<i class="gr-end"></i>')


def begin(
    visit: Visit, turn: SavedTurn, before: Answer | None, intake: Intake | None = None
) -> Answering:
    """Have a question answered, after the answer before it, and once its files are taken in."""
    if intake is not None:
        _intakes()[turn.id] = intake
    settings, kb = visit.settings, visit.kb
    answer = Answering(
        turn,
        stream=lambda: session.assistant(settings, kb).stream(turn.question, history=before),
        line=session.waiting_line(settings),
        owner=visit.profile,
        save=partial(visit.store.save_turn, visit.profile),
        is_connected=session.is_connected,
        intake=intake,
    )
    return answering.begin(answer)


def _intakes() -> dict[str, Intake]:
    """Files that came with questions of this tab, by turn."""
    intakes: dict[str, Intake] = st.session_state.setdefault("intakes", {})
    return intakes


def _attached(turn: SavedTurn) -> str:
    intake = _intakes().get(turn.id)
    return render.files(intake.names) if intake else ""


def taken_in(turn: SavedTurn, t: Translate) -> str:
    """What became of the files that came with a question."""
    intake = _intakes().get(turn.id)
    report = intake.report if intake else None
    return evidence.report(report, t) if report else ""


def watch(visit: Visit, answer: Answering) -> None:
    """Show an answer while it is made. The stop button ends it; drawing the page anew does not."""
    place, end, halt = st.empty(), st.empty(), st.empty()
    end.html('<i class="gr-end"></i>')
    # The input line has such a button only while it is its own question that is answered.
    with halt.container(key="halt"):
        st.button(
            visit.t("stop_answer"),
            key=f"halt-{answer.turn.id}",
            icon=":material/stop_circle:",
            on_click=answer.stop,
        )
    # Hidden while the answer is written: a script that was stopped could not draw them any more.
    with st.container(key="actions-live"):
        actions(visit, answer.turn, last=True)
    try:
        _follow(answer, place, visit.t)
    except StopException:
        # A script is stopped by the button, and where its browser has gone: that may be a reload,
        # so the answer goes on for a moment.
        if session.is_connected():
            answer.stop()
        raise
    halt.empty()
    whole = html(answer.turn, visit.t, shell.link, unsaved=answer.unsaved is not None)
    place.html(taken_in(answer.turn, visit.t) + whole)
    # The page follows only while the script runs: let it reach the end of the finished answer.
    time.sleep(FOLLOW_SECONDS)


def _follow(answer: Answering, place: DeltaGenerator, t: Translate) -> None:
    shown, drawn, looked = "", 0.0, 0.0
    while True:
        now = time.monotonic()
        if now - looked >= answering.LOOK_SECONDS:
            looked = now
            if session.is_connected():
                answer.seen()
        body = live(answer, t)
        if body != shown or now - drawn >= LISTEN_SECONDS:
            place.html(body)
            shown, drawn = body, now
        if answer.done.wait(REFRESH_SECONDS):
            return


def live(answer: Answering, t: Translate) -> str:
    """The HTML of an answer that is still being written or waited for."""
    files = taken_in(answer.turn, t)
    # Marks first: text that came meanwhile is behind them.
    citations, unsupported = answer.citations, answer.unsupported
    turn = answer.turn
    if not turn.text:
        return files + render.waiting(t, _waited_for(answer, t))
    doubts = [item for item in unsupported if citations or item.kind == "number"]
    body = render.answer_body(turn.text, citations, doubts, key=key_of(turn), t=t)
    return files + render.answer_block(body, live=True)


def _waited_for(answer: Answering, t: Translate) -> str:
    """Files that are read, questions before this one; nothing where it is only the model."""
    if answer.intake is not None and answer.intake.report is None:
        return f"{t('ingesting')} · {adding.standing(answer.intake.run.progress, t)}"
    return t("queue", n=answer.ahead) if answer.ahead else ""


def key_of(turn: SavedTurn) -> str:
    """Prefix of the anchors of a turn's passages."""
    return f"a{turn.position}"


def html(
    turn: SavedTurn,
    t: Translate,
    link: evidence.Link | None = None,
    *,
    elsewhere: bool = False,
    unsaved: bool = False,
) -> str:
    """The HTML of an answer that came to its end, broke off or was stopped.

    Args:
        elsewhere: another process is writing it.
        unsaved: it could not be kept.
    """
    lost = render.notice("warn", t("unsaved"), t("unsaved_text")) if unsaved else ""
    if turn.answer is not None:
        unread = render.notice("warn", t("unread")) if turn.unread else ""
        return unread + evidence.answer(turn.answer, key_of(turn), t, link) + lost
    body = render.answer_block(render.answer_body(turn.text)) if turn.text else ""
    if turn.status == "failed":
        return body + _failure(turn, t) + lost
    key = "elsewhere" if elsewhere else "no_evidence" if turn.status == "done" else "stopped"
    return body + render.notice("info", t(key)) + lost


def _failure(turn: SavedTurn, t: Translate) -> str:
    kept = bool(turn.text)
    error = answering.restored(turn.error)
    if error is not None:
        return failures.notice(error, t, kept=kept)
    title = f"{t('error')} {t('error_kept')}" if kept else t("error")
    return render.notice("error", title, t("error_internal", kind=turn.error or "?"))


# ---------------------------------------------------------------- what can be done


def actions(visit: Visit, turn: SavedTurn, *, last: bool) -> None:
    """Say what one thinks of an answer; have the last one made again."""
    t = visit.t
    with st.container(horizontal=True, vertical_alignment="center", key=f"actions-{turn.id}"):
        if last:
            st.button(
                t("regenerate"),
                key=f"again-{turn.id}",
                type="tertiary",
                icon=":material/refresh:",
                help=t("regenerate"),
                on_click=_again,
                args=(visit, turn, turn.question, 0),
            )
        if turn.answer is None and turn.status != "running":
            return
        st.feedback(
            "thumbs",
            key=f"vote-{turn.id}",
            default={"down": 0, "up": 1}.get(turn.vote or ""),
            on_change=_vote,
            args=(visit, turn),
        )
        if turn.vote is not None:
            _words(visit, turn)


def _vote(visit: Visit, turn: SavedTurn) -> None:
    vote = _VOTES[st.session_state[f"vote-{turn.id}"]]
    visit.store.set_feedback(visit.profile, turn.id, vote, turn.words)


def _words(visit: Visit, turn: SavedTurn) -> None:
    t = visit.t
    label = t("feedback_said") if turn.words else t("feedback_say")
    with st.popover(label, type="tertiary"):
        st.text_area(
            t("feedback_label"),
            turn.words,
            key=f"words-{turn.id}",
            max_chars=2000,
            placeholder=t("feedback_hint"),
            on_change=_say,
            args=(visit, turn),
        )
        st.html(f'<p class="gr-foot">{t("feedback_local")}</p>')


def _say(visit: Visit, turn: SavedTurn) -> None:
    words = st.session_state[f"words-{turn.id}"]
    visit.store.set_feedback(visit.profile, turn.id, turn.vote, words)


def edit_button(visit: Visit, turn: SavedTurn) -> None:
    """Under a question: change it and ask again."""
    with st.container(horizontal=True, horizontal_alignment="right", key=f"edit-{turn.id}"):
        st.button(
            visit.t("edit"),
            key=f"change-{turn.id}",
            type="tertiary",
            icon=":material/edit:",
            help=visit.t("edit"),
            on_click=_edit,
            args=(turn.id,),
        )


def _edit(turn_id: str | None) -> None:
    st.session_state[_EDITING] = turn_id


def _editor(visit: Visit, turn: SavedTurn) -> None:
    t = visit.t
    later = _later(visit, turn)
    with st.container(key="editor"):
        st.text_area(
            t("edit"), turn.question, key=f"question-{turn.id}", label_visibility="collapsed"
        )
        if later:
            st.html(f'<p class="gr-foot">{t("edit_later", n=later)}</p>')
        with st.container(horizontal=True, horizontal_alignment="right"):
            st.button(t("cancel"), key="keep", on_click=_edit, args=(None,))
            st.button(
                t("send"),
                key="send",
                type="primary",
                on_click=_send_again,
                args=(visit, turn, later),
            )


def _send_again(visit: Visit, turn: SavedTurn, later: int) -> None:
    if question := st.session_state[f"question-{turn.id}"].strip():
        _again(visit, turn, question, later)


def _later(visit: Visit, turn: SavedTurn) -> int:
    """How many questions come after a turn, from whichever window."""
    conversation = visit.store.get(visit.profile, turn.conversation_id)
    turns = conversation.turns if conversation else ()
    return sum(other.position > turn.position for other in turns)


def _again(visit: Visit, turn: SavedTurn, question: str, later: int) -> None:
    """Ask once more in place of a turn and of those after it, if there are as many as was shown.

    Otherwise another window went on with the conversation, and would lose what it asked.
    """
    if _later(visit, turn) != later:
        st.toast(visit.t("went_on"))
        return
    _edit(None)
    end_from(visit, turn)
    ask(question)


def end_from(visit: Visit, turn: SavedTurn) -> None:
    """End a turn and those after it, also while they are written, and forget them."""
    answering.end(turn.conversation_id, turn.position)
    visit.store.cut(visit.profile, turn.conversation_id, turn.position)
