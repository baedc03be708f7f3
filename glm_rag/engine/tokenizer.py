"""What the engine needs of a tokenizer, and how a checkpoint's own one is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from glm_rag.engine.config import TokenizerKind
from glm_rag.errors import CheckpointError
from glm_rag.types import ChatTurn


class Tokenizer(Protocol):
    """Text to ids and back, and the chat format of one model family."""

    @property
    def vocab_size(self) -> int:
        """Ids from here on are never sampled (64,794 for ChatGLM2)."""
        ...

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        ...

    def encode(self, text: str) -> list[int]:
        """Plain pieces; text that looks like a special token stays text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids without special ones; incomplete UTF-8 gives U+FFFD."""
        ...

    def count(self, text: str) -> int:
        """`len(encode(text))`."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """A raw completion prompt: the model's leading ids, then the text."""
        ...

    def encode_chat(self, turns: Sequence[ChatTurn]) -> list[int]:
        """The whole prompt up to where the answer starts; the last turn is the user's.

        Assistant turns with `token_ids` are continued with exactly these ids.

        Raises:
            ConfigError: no turn, or the last one is not the user's.
        """
        ...


def load_tokenizer(folder: Path, kind: TokenizerKind = "auto") -> Tokenizer:
    """The tokenizer of a checkpoint folder.

    Args:
        kind: `chatglm2` reads tokenizer.model, `chatml` tokenizer.json, `auto` what is there.

    Raises:
        CheckpointError: the file is absent or damaged.
        MissingDependencyError: sentencepiece or tokenizers is not installed.
    """
    model, json = folder / "tokenizer.model", folder / "tokenizer.json"
    if kind == "chatglm2" or (kind == "auto" and model.is_file()):
        from glm_rag.engine.chatglm2_tokenizer import ChatGLM2Tokenizer

        return ChatGLM2Tokenizer.from_file(model)
    if kind == "chatml" or json.is_file():
        from glm_rag.engine.chatml_tokenizer import ChatMLTokenizer

        return ChatMLTokenizer.from_file(json)
    raise CheckpointError(f"{folder} has neither tokenizer.model nor tokenizer.json")
