"""Values of text generation: sampling, tokens counted, turns of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from glm_rag.errors import ConfigError

if TYPE_CHECKING:
    from glm_rag.types.answers import Passage

# repetition: the answer began to say the same thing over and over, so it was ended.
FinishReason = Literal["stop", "length", "repetition"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. Defaults are those of the published model's `chat()`.

    Order of application: repetition penalty, temperature, top-k, top-p, as in transformers.

    Attributes:
        max_tokens: most tokens to generate.
        temperature: 0 means greedy.
        top_k: keep the k most likely tokens; 0 turns it off.
        top_p: keep the smallest set with at least this probability mass, in (0, 1].
        repetition_penalty: divides positive and multiplies negative logits of tokens already
            in prompt or answer (CTRL, arXiv 1909.05858); 1 turns it off.
        seed: makes sampling repeatable; None draws a fresh one.
        stop: strings that end the answer and are not part of it.
        speculate: guess tokens from prompt and answer and verify several in one pass. Changes
            no answer but by rounding, where two tokens are as good as equally likely.
        loop_guard: end an answer that repeats itself, with finish reason `repetition`.
    """

    max_tokens: int = 1024
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 0.8
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    speculate: bool = True
    loop_guard: bool = True

    def __post_init__(self) -> None:
        checks = {
            f"max_tokens must be at least 1, got {self.max_tokens}": self.max_tokens >= 1,
            f"temperature must be 0 or more, got {self.temperature}": self.temperature >= 0,
            f"top_k must be 0 or more, got {self.top_k}": self.top_k >= 0,
            f"top_p must be in (0, 1], got {self.top_p}": 0 < self.top_p <= 1,
            f"repetition_penalty must be above 0, got {self.repetition_penalty}": (
                self.repetition_penalty > 0
            ),
            "stop strings must not be empty": all(self.stop),
        }
        for message, holds in checks.items():
            if not holds:
                raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one generation, by the model's own tokenizer.

    Attributes:
        cached_tokens: of the prompt, not computed again.
        drafted_tokens, accepted_tokens: guessed by speculation, and those that came true.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class GenerationDelta:
    """What one step added. `finish_reason` and `usage` are set on the last one only.

    `text` may be empty (a token that ends inside a character or a possible stop string);
    joining all texts gives the answer.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """What an engine that serves several answers at once is doing, and has done.

    Attributes:
        num_running, num_waiting: answers now; those that wait lack a place or memory.
        prompt_tokens: computed. cached_tokens: of prompts, taken from kept sequences instead.
        generated_tokens: given out.
        finished: answers by why they ended: `stop`, `length`, `repetition`, `closed` by the
            reader, or `error`.
    """

    num_running: int
    num_waiting: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    finished: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """What an engine may keep of the sequences it computed.

    Attributes:
        memory_bytes: of KV caches kept in memory.
        disk_bytes: of those in files under `folder`; nothing is written without a folder.
    """

    memory_bytes: int
    disk_bytes: int = 0
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One message of a conversation, in the words of a chat model.

    `token_ids` are the ids the model itself generated for an assistant turn. Kept ids let the
    next prompt continue the same sequence: encoding the text again gives other ids.

    A user turn that was answered from documents keeps what the model read: `prompt` stands in
    the place of `text`, and `passages` are those that it shows.
    """

    role: Role
    text: str
    token_ids: tuple[int, ...] | None = None
    prompt: str | None = field(default=None, repr=False, metadata={"json": False})
    passages: tuple[Passage, ...] = field(default=(), repr=False, metadata={"json": False})
