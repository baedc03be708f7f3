"""Stand-ins for the language model: a tiny random one, and one that recites given replies."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.running_answer import RunningAnswer
from glm_rag.engine.tokenizer import Tokenizer
from glm_rag.errors import ContextWindowError
from glm_rag.types import GenerationDelta, SamplingParams, Usage

# The helpers of the engine's own tests live beside them.
sys.path.append(str(Path(__file__).parent / "unit" / "engine"))

from tiny_checkpoints import TINY, byte_tokenizer, tiny_engine, write_checkpoint

__all__ = ["ScriptedEngine", "byte_tokenizer", "tiny_engine", "write_checkpoint"]


@dataclass
class ScriptedEngine:
    """Looks like an Engine; answers the n-th call with the n-th reply, the last one for ever.

    Attributes:
        prompts: the prompt ids of every call. params: its sampling parameters.
    """

    replies: list[str]
    context_window: int = 8192
    name: str = "scripted"
    tokenizer: Tokenizer = field(default_factory=byte_tokenizer)
    config: ModelConfig = TINY
    prompts: list[list[int]] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    scheduler: None = None
    closed: int = 0  # generations that ended or were broken off

    @property
    def prompt_texts(self) -> list[str]:
        """What the model was given to read, special ids left out."""
        return [self.tokenizer.decode(prompt) for prompt in self.prompts]

    def generate(
        self, prompt_ids: Sequence[int], params: SamplingParams, *, cache: object | None = None
    ) -> Generator[GenerationDelta, None, None]:
        """Stream the next reply one byte-level token at a time."""
        prompt = list(prompt_ids)
        self.check_prompt(prompt)
        reply = self.replies[min(len(self.prompts), len(self.replies) - 1)]
        self.prompts.append(prompt)
        self.params.append(params)
        return self._stream(prompt, reply, params)

    def check_prompt(self, prompt_ids: Sequence[int]) -> None:
        """Refuse what does not fit."""
        if len(prompt_ids) >= self.context_window:
            raise ContextWindowError(f"the prompt has {len(prompt_ids)} tokens")

    def _stream(
        self, prompt: list[int], reply: str, params: SamplingParams
    ) -> Generator[GenerationDelta, None, None]:
        try:
            room = min(params.max_tokens, self.context_window - len(prompt))
            answer = RunningAnswer(self.tokenizer, replace(params, max_tokens=room))
            end, *_ = self.tokenizer.eos_token_ids
            for token_id in [*self.tokenizer.encode(reply), end]:
                if delta := answer.push(token_id):
                    yield delta
                if answer.reason:
                    break
            yield answer.finish(Usage(len(prompt), answer.num_tokens))
        finally:
            self.closed += 1
