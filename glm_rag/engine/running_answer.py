"""One answer while its tokens come: text, stop strings, loops, and why it ended."""

from __future__ import annotations

from glm_rag.engine.detokenize import AnswerStream
from glm_rag.engine.loop_guard import LoopGuard
from glm_rag.engine.tokenizer import Tokenizer
from glm_rag.types import FinishReason, GenerationDelta, SamplingParams, Usage


class RunningAnswer:
    """Turns ids into deltas until `reason` says that no more are wanted.

    Attributes:
        reason: why the answer ended; None while it goes on.
        num_tokens: ids so far, without the one that ends an answer.
    """

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams) -> None:
        self.reason: FinishReason | None = None
        self.num_tokens = 0
        self._end_ids = tokenizer.eos_token_ids
        self._max_tokens = params.max_tokens
        self._stream = AnswerStream(tokenizer.decode, params.stop)
        self._guard = LoopGuard() if params.loop_guard else None

    def push(self, token_id: int) -> GenerationDelta | None:
        """What the id adds; None for the id that ends an answer, which is no part of it."""
        if token_id in self._end_ids:
            self.reason = "stop"
            return None
        self.num_tokens += 1
        delta = GenerationDelta(*self._stream.push(token_id))
        loops = self._guard is not None and self._guard.push(token_id)
        if self._stream.stopped:
            self.reason = "stop"
        elif loops:
            self.reason = "repetition"
        elif self.num_tokens == self._max_tokens:
            self.reason = "length"
        return delta

    def finish(self, usage: Usage) -> GenerationDelta:
        """The last delta: what was held back, the reason and the usage."""
        text, ids = self._stream.finish()
        # What was held back may complete a stop string.
        reason = "stop" if self._stream.stopped else self.reason
        return GenerationDelta(text, ids, reason, usage)
