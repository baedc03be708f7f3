"""One answer on its way, in a thread of its own: pages look at it, and may come and go.

So a page that is drawn anew (another language, a reload) goes on showing the same answer. The stop
button ends it at once, also while the model reads its prompt; an answer nobody looks at any more
is ended likewise, by a second thread that only watches. Its place in the line goes with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

import streamlit as st
from streamlit.runtime.scriptrunner import add_script_run_ctx

from glm_rag import errors
from glm_rag.breaker import Breaker
from glm_rag.errors import GlmRagError
from glm_rag.types import AnswerDelta, Citation, SavedTurn, Unsupported

if TYPE_CHECKING:
    from collections.abc import Generator

    from glm_rag.waiting import FairLine, FairTicket
    from glm_rag_ui.intake import Intake

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
SAVE_SECONDS = 2.0
# A reload takes a second or two; a browser that is gone for longer will not come back.
GRACE_SECONDS = 3.0
_WAIT_SECONDS = 0.25


class Answering:
    """An answer that is waited for, written and saved.

    Args:
        turn: the question, as the store gave it.
        stream: makes the stream of the answer; called in the thread, once it is its turn.
        line: where questions to the same model wait. owner: whose question it is, for its turns.
        save: keeps a turn; called at times and at the end. It may fail: the answer goes on.
        is_connected: whether the browser that asked is still there.
        intake: files that have to be taken in first.
    """

    def __init__(
        self,
        turn: SavedTurn,
        *,
        stream: Callable[[], Iterator[AnswerDelta]],
        line: FairLine,
        owner: str,
        save: Callable[[SavedTurn], None],
        is_connected: Callable[[], bool] = lambda: True,
        intake: Intake | None = None,
    ) -> None:
        self.turn, self.owner = turn, owner
        self.intake = intake
        self.citations: tuple[Citation, ...] = ()
        self.unsupported: tuple[Unsupported, ...] = ()
        self.ahead = 0
        self.unsaved: Exception | None = None
        self.done = threading.Event()
        self._stream, self._line, self._save = stream, line, save
        self._is_connected = is_connected
        self._stopped, self._discarded = threading.Event(), threading.Event()
        self._breaker = Breaker()
        self._seen = time.monotonic()

    def start(self) -> None:
        """Begin, for the session of the calling script."""
        for work in (self._watch, self._run):
            thread = threading.Thread(target=work, name="answer", daemon=True)
            add_script_run_ctx(thread)
            thread.start()

    def stop(self, *, discard: bool = False) -> None:
        """End it now, and keep what came unless `discard`."""
        if discard:
            self._discarded.set()
        self._stopped.set()
        self._breaker.break_off()

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopped.is_set()

    def seen(self) -> None:
        """Note that somebody looks at it."""
        self._seen = time.monotonic()

    # ------------------------------------------------------------ in its threads

    def _watch(self) -> None:
        """Break it off where its browser has gone: its own thread may be waiting for the model."""
        while not self.done.wait(LOOK_SECONDS):
            if self._is_connected():
                self.seen()
            elif time.monotonic() - self._seen > GRACE_SECONDS:
                self._breaker.break_off()
                return

    def _run(self) -> None:
        status: Literal["done", "stopped", "failed"] = "failed"
        error = ""
        try:
            status = self._answer() if self._takes_in() else "stopped"
        except Exception as failure:  # whatever broke: the part that came is kept
            if self._breaker.is_broken:  # a model that was cut short may complain
                status = "stopped"
            elif isinstance(failure, GlmRagError):
                error = f"{type(failure).__name__}: {failure}"
            else:
                log.exception("the answer broke off")
                error = type(failure).__name__
        self.turn = replace(self.turn, status=status, error=error)
        self._keep()
        self.done.set()

    def _takes_in(self) -> bool:
        """Wait for the files; false if there is nothing to be asked of them any more."""
        if self.intake is None:
            return True
        while not self.intake.wait(_WAIT_SECONDS):
            if self._breaker.is_broken:
                if self.is_stopping:  # not where the browser is gone: the files were given to us
                    self.intake.stop()
                return False
        return self.intake.is_whole()

    def _answer(self) -> Literal["done", "stopped"]:
        turn_came = threading.Event()
        ticket = self._line.enter(self.owner, turn_came.set)
        try:
            self._wait_for(ticket, turn_came)
            return self._write()
        finally:
            ticket.leave()

    def _wait_for(self, ticket: FairTicket, turn_came: threading.Event) -> None:
        """Return when its turn has come, or nobody wants the answer any more."""
        while ticket.state == "waiting" and not self._breaker.is_broken:
            self.ahead = ticket.ahead
            turn_came.wait(_WAIT_SECONDS)
        self.ahead = 0

    def _write(self) -> Literal["done", "stopped"]:
        if self._breaker.is_broken:
            return "stopped"
        saved = time.monotonic()
        with (
            self._breaker.inside(),
            closing(cast("Generator[AnswerDelta]", self._stream())) as deltas,
        ):
            for delta in deltas:
                if self._breaker.is_broken:  # what it calls the whole answer is the part that came
                    return "stopped"
                self._take(delta)
                if delta.answer is not None:
                    return "done"
                if time.monotonic() - saved >= SAVE_SECONDS:
                    self._keep()
                    saved = time.monotonic()
        return "stopped"

    def _take(self, delta: AnswerDelta) -> None:
        text = delta.answer.text if delta.answer else self.turn.text + delta.text
        self.turn = replace(self.turn, text=text, answer=delta.answer)
        self.citations += delta.citations
        self.unsupported += delta.unsupported

    def _keep(self) -> None:
        if self._discarded.is_set():
            return
        try:
            self._save(self.turn)
            self.unsaved = None
        except Exception as error:  # a full disk must not cost the answer on the screen
            log.exception("the answer could not be saved")
            self.unsaved = error


def restored(error: str) -> GlmRagError | None:
    """The error that a failed turn keeps as text; None where its kind is not one of ours."""
    kind, _, message = error.partition(": ")
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, GlmRagError):
        return found(message)
    return None


# ---------------------------------------------------------------- all of this process


@st.cache_resource(show_spinner=False)
def _all() -> dict[str, Answering]:
    """Answers on their way, by turn, shared by all sessions."""
    return {}


def begin(answer: Answering) -> Answering:
    """Start an answer, and let other pages of this process find it."""
    running = _all()
    for turn_id in [name for name, other in list(running.items()) if other.done.is_set()]:
        running.pop(turn_id, None)
    running[answer.turn.id] = answer
    answer.start()
    return answer


def find(turn: SavedTurn) -> Answering | None:
    """The answer of this process that is on its way for a turn."""
    return _all().get(turn.id)


def end(conversation_id: str, position: int = 0) -> None:
    """End the answers of a conversation from a turn on; nothing more of them is kept."""
    for answer in list(_all().values()):
        turn = answer.turn
        if turn.conversation_id == conversation_id and turn.position >= position:
            answer.stop(discard=True)
