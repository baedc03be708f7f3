"""How many tokens a prompt has and how many a model can read, for any LangChain chat model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import RunnableBinding

from glm_rag.messages import to_messages
from glm_rag.text import estimate_tokens
from glm_rag.types import ChatTurn

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

# What nearly every chat model can read; used where a model does not say.
DEFAULT_WINDOW = 4096

_COUNTING = ("get_num_tokens_from_messages", "get_num_tokens", "get_token_ids")


class TokenCounter:
    """Counts with the model's own tokenizer where it has one, else estimates generously.

    LangChain's default would fetch GPT-2's tokenizer from the network; it is never used. The
    estimate is one token per three bytes of UTF-8: one per Chinese character, and about a
    third more than an English text has.
    """

    def __init__(self, llm: Runnable[Any, Any]) -> None:
        while isinstance(llm, RunnableBinding):
            llm = llm.bound
        self._llm: Any = llm if _counts_itself(llm) else None

    def prompt(self, turns: Sequence[ChatTurn]) -> int:
        """Tokens of a whole conversation, prompt format included where it is known."""
        if self._llm is not None:
            return int(self._llm.get_num_tokens_from_messages(to_messages(turns)))
        # Role markers of the common formats take about four tokens a turn.
        return sum(self.text(turn.text) + 4 for turn in turns)

    def text(self, text: str) -> int:
        """Tokens of a text alone."""
        if self._llm is not None:
            return int(self._llm.get_num_tokens(text))
        return estimate_tokens(text)


def context_window(llm: Runnable[Any, Any], limit: int | None = None) -> int:
    """Tokens of prompt and answer together: the model's own window, or `limit` if smaller."""
    while isinstance(llm, RunnableBinding):
        llm = llm.bound
    own = getattr(llm, "context_window", None)
    if not isinstance(own, int):
        profile = getattr(llm, "profile", None) or {}
        own = profile.get("max_input_tokens") or limit or DEFAULT_WINDOW
    return min(own, limit) if limit else int(own)


def _counts_itself(llm: object) -> bool:
    if not isinstance(llm, BaseLanguageModel):
        return False
    if llm.custom_get_token_ids is not None:
        return True
    return any(getattr(type(llm), n) is not getattr(BaseLanguageModel, n) for n in _COUNTING)
