"""Language models behind an OpenAI-compatible server, as LangChain chat models.

`RemoteCompletions` writes ChatGLM2's rounds itself; `remote_chat.RemoteChat` leaves the prompt
format to the server.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import (
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field

from glm_rag.engine.chat_turns import to_rounds
from glm_rag.errors import ConfigError
from glm_rag.messages import prompt_turns, to_turns
from glm_rag.remote_server import RemoteServer
from glm_rag.settings import GenerationSettings
from glm_rag.types import ChatTurn

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForLLMRun,
        CallbackManagerForLLMRun,
    )


# Settings of `generation` that a call may change; stop strings add up instead.
_PER_CALL = ("max_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "seed")


class RemoteModel:
    """What the rest of the program asks of a model, for those behind a server."""

    server: RemoteServer

    @property
    def context_window(self) -> int:
        """Most tokens of prompt and answer together; may ask the server."""
        return self.server.context_window

    def get_num_tokens(self, text: str) -> int:
        """Tokens of a text, by `llm.tokenizer` or a generous estimate."""
        return self.server.tokens.text(text)

    def get_num_tokens_from_messages(
        self, messages: Sequence[BaseMessage], tools: Sequence[Any] | None = None, **_options: Any
    ) -> int:
        """Tokens of the prompt that these messages become, `tools` left out."""
        return self.server.tokens.prompt(to_turns(messages))

    def get_token_ids(self, text: str) -> list[int]:
        """Not known here; raises ConfigError."""
        raise ConfigError("token ids are the server's business: use get_num_tokens")


class RemoteCompletions(RemoteModel, BaseChatModel):
    """Renders the prompt here and has it continued at `/v1/completions`.

    With `llm.tokenizer` the prompt goes as token ids, the very ones the engine here would read, so
    no text in it can become a special token. Without, it goes as ChatGLM2's rounds in text, and
    the server's tokenizer adds [gMASK] sop.

    Raises:
        ConfigError: a message that the model cannot read, or a request that the server refuses.
        ContextWindowError, ModelNotFoundError, ModelError: see `RemoteServer.translated`.
    """

    server: RemoteServer = Field(exclude=True, repr=False)
    generation: GenerationSettings = GenerationSettings()

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @property
    def _llm_type(self) -> str:
        return "chatglm2-remote"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        sampling = self.generation.model_dump()
        return {"model": self.server.model, "base_url": self.server.url, **sampling}

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs)
        create = self.server.client.completions.create
        with self.server.streamed() as came, create(**request) as events:
            for chunk in map(_chunk, events):
                if chunk is None:
                    continue
                if run_manager is not None:
                    run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
                came.see(chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs)
        with self.server.streamed() as came:
            async with await self.server.async_client.completions.create(**request) as events:
                async for event in events:
                    if (chunk := _chunk(event)) is None:
                        continue
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
                    came.see(chunk)
                    yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        stream = self._astream(messages, stop, run_manager, **kwargs)
        async with aclosing(cast("AsyncGenerator[ChatGenerationChunk, None]", stream)) as chunks:
            return await agenerate_from_stream(cast("AsyncIterator[ChatGenerationChunk]", chunks))

    def _request(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        turns = [ChatTurn(turn.role, turn.text) for turn in prompt_turns(messages)]
        ids = self.server.tokens.prompt_ids(turns)
        request = request_options(self.generation) | changed_options(self.generation, changes)
        request.pop("stream", None)
        stops = [*self.generation.stop, *(stop or ())]
        if stops:
            request["stop"] = list(dict.fromkeys(stops))
        return {
            "model": self.server.model,
            "prompt": rounds_text(turns) if ids is None else ids,
            **request,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


def request_options(generation: GenerationSettings) -> dict[str, Any]:
    """Sampling settings as a request names them; those beyond OpenAI's only where they act."""
    options: dict[str, Any] = {
        "max_tokens": generation.max_tokens,
        "temperature": generation.temperature,
    }
    extra: dict[str, Any] = {}
    if generation.temperature > 0:
        options["top_p"] = generation.top_p
        if generation.top_k:
            extra["top_k"] = generation.top_k
    if generation.seed is not None:
        options["seed"] = generation.seed
    if generation.repetition_penalty != 1:
        # vLLM and SGLang read the first name, llama.cpp the second
        extra["repetition_penalty"] = generation.repetition_penalty
        extra["repeat_penalty"] = generation.repetition_penalty
    return {**options, "extra_body": extra} if extra else options


def changed_options(generation: GenerationSettings, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What one call changes, as a request names it: sampling settings of ours, or anything else."""
    own = {name: changes[name] for name in _PER_CALL if name in changes}
    others = {name: value for name, value in changes.items() if name not in own}
    if not own:
        return others
    return request_options(generation.model_copy(update=own)) | others


def rounds_text(turns: Sequence[ChatTurn]) -> str:
    """ChatGLM2's prompt as text, without the ids that its tokenizer puts before it."""
    text = ""
    for number, turns_round in enumerate(to_rounds(turns), start=1):
        text += f"[Round {number}]\n\n问：{turns_round.question}\n\n答："
        if turns_round.answer is not None:
            text += f"{turns_round.answer.text}\n\n"
    return text


def _chunk(event: Any) -> ChatGenerationChunk | None:
    """What an event of the stream says; nothing where it says nothing."""
    choice = event.choices[0] if event.choices else None
    usage = _usage(event.usage) if event.usage else None
    text = (choice.text or "") if choice else ""
    reason = choice.finish_reason if choice else None
    if not text and reason is None and usage is None:
        return None
    metadata = {"finish_reason": reason, "model_name": event.model} if reason else {}
    message = AIMessageChunk(content=text, response_metadata=metadata, usage_metadata=usage)
    return ChatGenerationChunk(message=message)


def _usage(usage: Any) -> UsageMetadata:
    details = getattr(usage, "prompt_tokens_details", None)
    cached = getattr(details, "cached_tokens", None) or 0
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=cached),
    )
