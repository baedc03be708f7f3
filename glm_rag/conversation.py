"""What a follow-up question takes from the conversation before it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from langchain_core.messages import convert_to_messages

from glm_rag.errors import ConfigError
from glm_rag.messages import to_turns
from glm_rag.text import query_terms
from glm_rag.types import Answer, ChatTurn

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    History = (
        Answer | Sequence[tuple[str, str]] | Sequence[dict[str, str]] | Sequence[ChatTurn]
        | Sequence[BaseMessage]
    )  # fmt: skip

_ACCEPTED = "an Answer, (role, text) pairs, ChatTurns or messages"

# Words that point back: the question cannot be searched for without what they point to.
# Case matters: "it" points back, "IT" is a department.
_POINTS_BACK = re.compile(
    r"^(?:and|but|or|so|then|also|what about|how about)\b"
    r"|\b(?:it|its|they|them|their|theirs|he|him|his|she|her|hers|those|these|this"
    r"|the same|the (?:former|latter|other|others))\b"
    r"|\bthat\W*$|\b(?:is|does|do|did|of|for|about|with|to|after|before|like) that\b"
    r"|^(?:那|还有|另外|此外|以及|也|又)|呢\W*$"
    r"|[它她]|(?<![其])他|其(?![他实余中次])"
    r"|这(?!里的)|那(?:个|些|种|么|样|里|时)|(?<!应)该|同样|上面|前者|后者"
)
# "For part-timers?": a preposition and a noun, without a verb or a question word.
_FRAGMENT = re.compile(r"^(?:for|in|at|on|with|without|during|after|before|from|to)\s[\w' -]+\W*$")
_CLAUSE = re.compile(
    r"\b(?:wh\w+|how|is|are|was|were|am|do|does|did|can|could|may|must|shall|should|will|would"
    r"|has|have|had)\b"
)


def history_turns(history: History | None) -> list[ChatTurn]:
    """User and assistant turns of a conversation in any of the accepted forms.

    Raises:
        ConfigError: neither an `Answer` nor a sequence of messages, turns or (role, text) pairs.
    """
    if history is None:
        return []
    if isinstance(history, Answer):
        return list(history.messages)
    turns = _as_turns(history)
    if any(turn.role == "system" for turn in turns):
        raise ConfigError("history holds user and assistant turns only: remove the system turn")
    return turns


def _as_turns(history: object) -> list[ChatTurn]:
    if isinstance(history, str) or not isinstance(history, Sequence):
        raise ConfigError(f"history must be {_ACCEPTED}, not {type(history).__name__}")
    if all(isinstance(item, ChatTurn) for item in history):
        return list(history)
    try:
        return to_turns(convert_to_messages(history))
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"history must be {_ACCEPTED}: {reason}") from error


def recent_turns(
    turns: Sequence[ChatTurn], count: Callable[[Sequence[ChatTurn]], int], share: int
) -> list[ChatTurn]:
    """The end of a conversation that takes at most `share` tokens, in whole rounds.

    Rounds stay as the model read them, so that a prompt goes on where the last one ended. When
    a round no longer fits, the older ones first lose their passages and then go, down to half
    the share: the beginning then stays the same for several more rounds.
    """
    rounds = _rounds(turns)
    gone = bare = 0

    def size(end: int) -> int:
        return count(_kept(rounds[:end], gone, bare))

    for end in range(1, len(rounds) + 1):
        if size(end) <= share:
            continue
        while bare < end - 1 and size(end) > share // 2:
            bare += 1
        if size(end) > share:
            bare = end
        while gone < end - 1 and size(end) > share // 2:
            gone += 1
        if size(end) > share:
            gone = end
    return _kept(rounds, gone, bare)


def _rounds(turns: Sequence[ChatTurn]) -> list[list[ChatTurn]]:
    rounds: list[list[ChatTurn]] = []
    for turn in turns:
        if turn.role == "user":
            rounds.append([])
        if rounds:
            rounds[-1].append(turn)
    return rounds


def _kept(rounds: Sequence[Sequence[ChatTurn]], gone: int, bare: int) -> list[ChatTurn]:
    """Turns of the rounds from `gone` on, those before `bare` without their passages."""
    old = [replace(t, prompt=None, passages=()) for r in rounds[gone:bare] for t in r]
    return old + [turn for each in rounds[max(gone, bare) :] for turn in each]


def search_question(question: str, turns: Sequence[ChatTurn]) -> str:
    """What to search for: a question that leans on the conversation gets the previous one too."""
    previous = next((turn.text for turn in reversed(turns) if turn.role == "user"), None)
    if previous is None or not leans_on_history(question):
        return question
    return f"{previous}\n{question}"


def own_terms(question: str) -> list[str]:
    """Search terms of the question itself, without the words that point back."""
    return query_terms(_POINTS_BACK.sub(" ", _begun_small(question)))


def leans_on_history(question: str) -> bool:
    """Whether a question points back (`and`, `it`, 那, 呢) or says nothing by itself (`Why?`)."""
    text = _begun_small(question)
    if _POINTS_BACK.search(text) or not query_terms(text):
        return True
    return bool(_FRAGMENT.match(text)) and not _CLAUSE.search(text)


def _begun_small(question: str) -> str:
    text = question.strip()
    return text[:1].lower() + text[1:]
