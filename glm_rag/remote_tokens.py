"""How many tokens a text has for a model behind a server: counted, or estimated generously."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_rag.errors import CheckpointError, MissingDependencyError
from glm_rag.types import ChatTurn

if TYPE_CHECKING:
    from glm_rag.engine.tokenizer import Tokenizer

# What a chat template writes around a turn: ChatGLM2's rounds take 7, ChatML's 4.
_TURN_TOKENS = 8
_LETTERS = re.compile(r"[A-Za-z]+")
_MANY_SPACES = re.compile(r" {2,}")
_ALONE = re.compile(r"[^A-Za-z \u0080-\U0010ffff]|[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
_OTHER = re.compile(r"[\u0080-\u2fff\u3040-\u4dff\ua000-\ufeff\ufff0-\U0010ffff]+")
_LETTERS_PER_TOKEN = 3


def generous_tokens(text: str) -> int:
    """More tokens than the usual tokenizers make of a text.

    Three letters of a word, a digit, a mark, a line break, a Chinese character are one each, and
    other scripts count by byte, as where a vocabulary lacks them.
    """
    letters = sum(-(-len(run) // _LETTERS_PER_TOKEN) for run in _LETTERS.findall(text))
    spaces = sum(1 for _ in _MANY_SPACES.finditer(text))
    others = sum(len(run.encode("utf-8", "replace")) for run in _OTHER.findall(text))
    alone = sum(1 for _ in _ALONE.finditer(text))
    return letters + spaces + others + alone + bool(text)  # one for the space some put first


class RemoteTokens:
    """Counts for one model; `folder` is a checkpoint folder with its tokenizer, or nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def text(self, text: str) -> int:
        """Tokens of a text alone."""
        if self.folder is None:
            return generous_tokens(text)
        if self._own is not None:
            return self._own.count(text)
        return len(self._plain.encode(text, add_special_tokens=False).ids)

    def prompt(self, turns: Sequence[ChatTurn]) -> int:
        """Tokens of a whole conversation: exact where the prompt format is known."""
        if self._own is not None:
            return len(self._own.encode_chat(turns))
        return sum(self.text(turn.text) + _TURN_TOKENS for turn in turns) + _TURN_TOKENS

    def prompt_ids(self, turns: Sequence[ChatTurn]) -> list[int] | None:
        """Ids of the prompt, or nothing where its format is not known."""
        return None if self._own is None else self._own.encode_chat(turns)

    @cached_property
    def _own(self) -> Tokenizer | None:
        """A tokenizer that knows the prompt format, if the folder's is of a known kind."""
        if self.folder is None:
            return None
        from glm_rag.engine.tokenizer import load_tokenizer

        try:
            return load_tokenizer(self.folder)
        except CheckpointError:
            self._plain  # noqa: B018 - raises where there is none at all
            return None

    @cached_property
    def _plain(self) -> Any:
        """Any other `tokenizer.json`."""
        try:
            from tokenizers import Tokenizer as Backend
        except ImportError as error:
            raise MissingDependencyError.for_extra("tokenizers", "engine") from error
        path = (self.folder or Path()) / "tokenizer.json"
        try:
            return Backend.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:
            raise CheckpointError(
                f"llm.tokenizer: {self.folder} has no readable tokenizer.json or tokenizer.model"
            ) from error
