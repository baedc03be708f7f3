"""ChatGLM2's sentencepiece tokenizer and round format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glm_rag.engine.chat_turns import to_rounds
from glm_rag.errors import CheckpointError, MissingDependencyError
from glm_rag.types import ChatTurn

# Appended after the pieces of the model file, in this order.
_SPECIAL_TOKENS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
_NUM_CONTROL_PIECES = 3  # <unk>, <s>, </s>
_EOS_ID = 2
_SPACE_MARK = "\u2581"


class ChatGLM2Tokenizer:
    """Encodes as the published tokenizer does; `encode_chat` has the prompt format.

    Special ids are written by the program only: "[gMASK]" or "</s>" in a text is plain text.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._num_pieces: int = processor.get_piece_size()
        first = self._num_pieces
        self._special = {name: first + i for i, name in enumerate(_SPECIAL_TOKENS)}
        self._prompt_prefix = [self._special["[gMASK]"], self._special["sop"]]
        self._dummy_space: int = processor.piece_to_id(_SPACE_MARK)
        self.vocab_size = self._num_pieces + len(_SPECIAL_TOKENS)
        self.eos_token_ids = frozenset({_EOS_ID})

    @classmethod
    def from_file(cls, path: Path) -> ChatGLM2Tokenizer:
        """Read `tokenizer.model`.

        Raises:
            CheckpointError: absent, or no sentencepiece model.
            MissingDependencyError: sentencepiece is not installed.
        """
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise MissingDependencyError.for_extra("sentencepiece", "engine") from error
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: fetch the model again")
        processor = SentencePieceProcessor()
        try:
            processor.load_from_serialized_proto(path.read_bytes())
        except (RuntimeError, OSError) as error:
            raise CheckpointError(f"{path} is no sentencepiece model: fetch it again") from error
        return cls(processor)

    def encode(self, text: str) -> list[int]:
        """Pieces of the text, the first one carrying the dummy space."""
        # sentencepiece takes UTF-8; a lone surrogate has none.
        clean = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        return list(self._processor.encode(clean))

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special and control ids and without the leading space mark."""
        return str(self._processor.decode([i for i in ids if self._is_text(i)]))

    def count(self, text: str) -> int:
        """`len(encode(text))`."""
        return len(self.encode(text))

    def encode_prompt(self, text: str) -> list[int]:
        """[gMASK] sop, then the text."""
        return self._prompt_prefix + self.encode(text)

    def encode_pair(self, first: str, second: str) -> list[int]:
        """A text and its completion, closed by the end id, as in the published training code."""
        return [*self.encode_prompt(first), *self.encode(second), _EOS_ID]

    def encode_chat(self, turns: Sequence[ChatTurn]) -> list[int]:
        """The published round format, answered rounds first.

        Text is encoded in one piece; where an answer's own ids were kept, they stand in its
        place and the text behind them goes on as in a continued session.
        """
        ids = list(self._prompt_prefix)
        text, continues = "", False
        for number, turns_round in enumerate(to_rounds(turns), start=1):
            text += f"[Round {number}]\n\n问：{turns_round.question}\n\n答："
            answer = turns_round.answer
            if answer is None:
                break
            if answer.token_ids is None:
                text += f"{answer.text}\n\n"
                continue
            ids += [*self._encode_segment(text, continues=continues), *answer.token_ids]
            text, continues = "\n\n", True
        return ids + self._encode_segment(text, continues=continues)

    def _encode_segment(self, text: str, *, continues: bool) -> list[int]:
        """Encode; behind kept ids without the dummy space that starts a text."""
        ids = self.encode(text)
        return ids[1:] if continues and ids[0] == self._dummy_space else ids

    def _is_text(self, token_id: int) -> bool:
        return _NUM_CONTROL_PIECES <= token_id < self._num_pieces
