"""Values of saved conversations. Times are seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from glm_rag.types.answers import Answer

TurnStatus = Literal["running", "done", "stopped", "failed"]
Vote = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class ConversationInfo:
    """What a list of conversations shows. `updated_at` is when the last question was asked."""

    id: str
    kb: str
    title: str
    created_at: float
    updated_at: float
    num_turns: int


@dataclass(frozen=True, slots=True)
class SavedTurn:
    """One question and what came of it.

    Attributes:
        position: in the conversation, from 0.
        text: of the answer, as far as it was streamed.
        answer: the finished answer; None while it runs, and where it was stopped or failed.
        status: a turn whose process died reads as `stopped`.
        error: why it failed, for people; empty otherwise.
        unread: the model does not read the question's language.
        vote, words: what the reader thinks of the answer.
    """

    id: str
    conversation_id: str
    position: int
    question: str
    text: str = ""
    answer: Answer | None = None
    status: TurnStatus = "running"
    error: str = ""
    unread: bool = False
    asked_at: float = 0.0
    vote: Vote | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation with all its turns, in order."""

    id: str
    kb: str
    title: str
    created_at: float
    updated_at: float
    turns: tuple[SavedTurn, ...] = ()
