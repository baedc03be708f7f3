"""Byte-level BPE tokenizer with the ChatML format, for models converted to ChatGLM2 form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glm_rag.engine.chat_turns import check_turns
from glm_rag.errors import CheckpointError, MissingDependencyError
from glm_rag.types import ChatTurn

_TURN_START = "<|im_start|>"
_TURN_END = "<|im_end|>"
_TEXT_END = "<|endoftext|>"


class ChatMLTokenizer:
    r"""Turns as `<|im_start|>role\ncontent<|im_end|>\n`; no system turn unless one is given.

    Special ids are written by the program only: "<|im_end|>" in a text is plain text, because
    the added tokens are taken out of the vocabulary that encodes texts.
    """

    def __init__(self, definition: str) -> None:
        """Build from the contents of a `tokenizer.json`.

        Raises:
            CheckpointError: it is damaged or has no ChatML tokens.
            MissingDependencyError: tokenizers is not installed.
        """
        try:
            from tokenizers import Tokenizer as BackendTokenizer
        except ImportError as error:
            raise MissingDependencyError.for_extra("tokenizers", "engine") from error
        try:
            fields = json.loads(definition)
            added = {token["content"]: token["id"] for token in fields.get("added_tokens") or []}
            plain = {**fields, "added_tokens": [], "post_processor": None}
            self._backend: Any = BackendTokenizer.from_str(json.dumps(plain))
        except Exception as error:
            raise CheckpointError(f"tokenizer.json is damaged: {error}") from error
        missing = [token for token in (_TURN_START, _TURN_END) if token not in added]
        if missing:
            raise CheckpointError(f"tokenizer.json lacks the token {missing[0]}")
        self._turn_start: int = added[_TURN_START]
        self._turn_end: int = added[_TURN_END]
        self._special = frozenset(added.values())
        self.eos_token_ids = frozenset({self._turn_end, added.get(_TEXT_END, self._turn_end)})
        self.vocab_size: int = max(self._backend.get_vocab_size(), max(self._special) + 1)

    @classmethod
    def from_file(cls, path: Path) -> ChatMLTokenizer:
        """Read `tokenizer.json`; errors as for the constructor."""
        try:
            definition = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} is missing: fetch the model again") from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        return cls(definition)

    def encode(self, text: str) -> list[int]:
        """Pieces of the text, all of them plain."""
        clean = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        return list(self._backend.encode(clean, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special ids."""
        plain = [i for i in ids if i not in self._special]
        return str(self._backend.decode(plain, skip_special_tokens=False))

    def count(self, text: str) -> int:
        """`len(encode(text))`."""
        return len(self.encode(text))

    def encode_prompt(self, text: str) -> list[int]:
        """The text alone: these models have no leading ids."""
        return self.encode(text)

    def encode_chat(self, turns: Sequence[ChatTurn]) -> list[int]:
        """All turns closed, then the head of the assistant's turn."""
        check_turns(turns)
        ids: list[int] = []
        for turn in turns:
            ids += [self._turn_start, *self._turn_body(turn), self._turn_end, *self.encode("\n")]
        return [*ids, self._turn_start, *self.encode("assistant\n")]

    def _turn_body(self, turn: ChatTurn) -> list[int]:
        if turn.token_ids is None:
            return self.encode(f"{turn.role}\n{turn.text}")
        return [*self.encode(f"{turn.role}\n"), *turn.token_ids]
