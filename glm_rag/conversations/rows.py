"""Rows of the file of conversations, and what they become."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from glm_rag.conversations.answers import answer_from_json, turn_from_json
from glm_rag.conversations.owner import is_alive
from glm_rag.errors import ConfigError, KnowledgeBaseError
from glm_rag.types import Answer, ChatTurn, SavedTurn
from glm_rag.types.plain import to_plain

# Of a conversation its id, where it is the profile's own.
OWN = "(SELECT id FROM conversations WHERE id = ? AND profile = ?)"
TURN = (
    "id, conversation_id, position, question, text, answer, messages, status, owner, error, "
    "unread, asked_at, vote, words"
)


def next_position(connection: sqlite3.Connection, profile: str, conversation_id: str) -> int:
    """Where the next turn of a conversation of one's own stands.

    Raises:
        KnowledgeBaseError: there is none.
    """
    ((known, position),) = connection.execute(
        f"SELECT {OWN} IS NOT NULL, (SELECT coalesce(max(position) + 1, 0) FROM turns "
        "WHERE conversation_id = ?)",
        (conversation_id, profile, conversation_id),
    )
    if not known:
        raise KnowledgeBaseError(
            f"there is no conversation {conversation_id}, it may have been deleted: start a new one"
        )
    return int(position)


def messages_of(rows: Iterable[tuple[str, str]]) -> dict[str, ChatTurn]:
    """Messages by digest, without those that cannot be read."""
    said = {}
    for digest, message in rows:
        with suppress(ConfigError):
            said[digest] = turn_from_json(message)
    return said


def turn_of(row: Sequence[Any], said: Mapping[str, ChatTurn]) -> SavedTurn:
    """A turn of the columns `TURN`; one whose process died while it ran reads as stopped."""
    turn_id, conversation_id, position, question, text, answer, messages, *rest = row
    status, owner, error, unread, asked_at, vote, words = rest
    return SavedTurn(
        id=turn_id,
        conversation_id=conversation_id,
        position=position,
        question=question,
        text=text,
        answer=answer_of(answer, messages, said),
        status="stopped" if status == "running" and not is_alive(owner) else status,
        error=error,
        unread=bool(unread),
        asked_at=asked_at,
        vote=vote,
        words=words,
    )


def answer_of(answer: str | None, messages: str, said: Mapping[str, ChatTurn]) -> Answer | None:
    """The answer; None where it cannot be read: its text is still worth showing."""
    if answer is None:
        return None
    try:
        made = answer_from_json(answer)
    except ConfigError:
        return None
    digests = json.loads(messages)
    # With a gap they would be another conversation than the one that was held.
    turns = tuple(said[digest] for digest in digests) if set(digests) <= said.keys() else ()
    return replace(made, messages=turns)


def feedback_of(
    question: str,
    text: str,
    answer: str | None,
    vote: str,
    words: str,
    kb: str,
    asked_at: float,
) -> dict[str, Any]:
    """What is exported of a vote: question, answer and sources, and nobody's name."""
    made = answer_of(answer, "[]", {})
    return {
        "question": question,
        "answer": text if made is None else made.text,
        "citations": [] if made is None else to_plain(made.citations),
        "vote": vote,
        "words": words,
        "kb": kb,
        "asked_at": datetime.fromtimestamp(asked_at, UTC).isoformat(timespec="seconds"),
    }
