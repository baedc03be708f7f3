"""Check and regroup the turns of a conversation for a prompt template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glm_rag.errors import ConfigError
from glm_rag.types import ChatTurn


@dataclass(frozen=True, slots=True)
class Round:
    """A question and its answer; the last round of a prompt has none yet."""

    question: str
    answer: ChatTurn | None = None


def check_turns(turns: Sequence[ChatTurn]) -> None:
    """Raise ConfigError unless the conversation waits for an answer."""
    if not turns or turns[-1].role != "user":
        raise ConfigError("a conversation must end with a user turn for the model to answer")


def to_rounds(turns: Sequence[ChatTurn]) -> list[Round]:
    """Question-answer rounds; system texts are put directly before the first question.

    The published server concatenates system text and question with nothing in between.
    Neighbouring turns of one role are joined by a blank line; an answer without a question
    before it gets an empty one.
    """
    check_turns(turns)
    system = "\n\n".join(turn.text for turn in turns if turn.role == "system")
    merged = _merge_neighbours([turn for turn in turns if turn.role != "system"])
    rounds: list[Round] = []
    question = ""
    for turn in merged:
        if turn.role == "user":
            question = turn.text
        else:
            rounds.append(Round(question, turn))
            question = ""
    rounds.append(Round(question))
    rounds[0] = Round(system + rounds[0].question, rounds[0].answer)
    return rounds


def _merge_neighbours(turns: Sequence[ChatTurn]) -> list[ChatTurn]:
    merged: list[ChatTurn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            turn = ChatTurn(turn.role, f"{merged.pop().text}\n\n{turn.text}")
        merged.append(turn)
    return merged
