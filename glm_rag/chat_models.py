"""`ChatGLM2`: the engine as a LangChain chat model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import aclosing, closing
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import (
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables.config import get_config_list, run_in_executor

from glm_rag.local_model import LocalModel, in_threads
from glm_rag.messages import TOKEN_IDS, prompt_turns
from glm_rag.shared_batch import batch_with_threads, shared_batch
from glm_rag.types import ChatTurn, GenerationDelta, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from langchain_core.callbacks import (
        AsyncCallbackManagerForLLMRun,
        CallbackManagerForLLMRun,
    )
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.runnables import RunnableConfig

    from glm_rag.engine.engine import Engine

_NO_TOOLS = (
    "ChatGLM2 was not trained to call tools or to fill a schema: give the agent a tool-calling "
    "model and let it use a glm-rag knowledge base as a tool"
)


class ChatGLM2(LocalModel, BaseChatModel):
    """ChatGLM2-6B-32K, or any checkpoint the engine runs, as a LangChain chat model.

    Reads text messages of the roles system (first only), user and assistant. Answers carry
    `usage_metadata` by the model's own tokenizer, `finish_reason` and `model_name` in
    `response_metadata`, and the generated ids in `additional_kwargs["token_ids"]`: passed back
    as history, they continue the same sequence. Breaking off a stream stops the generation.

    Sampling settings can be changed for one call: `llm.invoke("...", temperature=0, stop=["。"])`.

    Raises:
        ConfigError: unknown or wrong setting, message that the model cannot read.
        ContextWindowError: the prompt does not fit; raised before anything is computed.
        ModelNotFoundError, ModelError: on first use, when the checkpoint is absent or broken.
    """

    @property
    def _llm_type(self) -> str:
        return "chatglm2"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self._parameters()

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        deltas = self._deltas(messages, stop, kwargs)
        yield from self._chunks(deltas, self.model_name(kwargs.get("model")), run_manager)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        manager = None if run_manager is None else run_manager.get_sync()
        deltas = await run_in_executor(None, self._deltas, messages, stop, kwargs)
        chunks = self._chunks(deltas, self.model_name(kwargs.get("model")), manager)
        async with aclosing(in_threads(chunks, deltas)) as items:
            async for chunk in items:
                yield chunk

    def _deltas(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Generator[GenerationDelta, None, None]:
        params = self.sampling(stop, kwargs)
        engine = self.open(kwargs.get("model"))
        return self.run(engine, _prompt_ids(engine, messages), params)

    def _chunks(
        self,
        deltas: Generator[GenerationDelta, None, None],
        model_name: str,
        run_manager: CallbackManagerForLLMRun | None,
    ) -> Iterator[ChatGenerationChunk]:
        token_ids: list[int] = []
        with closing(deltas):
            for delta in deltas:
                token_ids += delta.token_ids
                if not delta.text and delta.finish_reason is None:
                    continue
                chunk = _chunk(delta, token_ids, model_name)
                if run_manager is not None:
                    run_manager.on_llm_new_token(delta.text, chunk=chunk)
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
        if (shared := batch_with_threads()) is not None:
            manager = None if run_manager is None else run_manager.get_sync()
            call = partial(self._generate, messages, stop, manager, **kwargs)
            return await shared.in_thread(call)
        # By way of the stream: a cancelled call then stops after the step in progress.
        stream = self._astream(messages, stop, run_manager, **kwargs)
        async with aclosing(cast("AsyncGenerator[ChatGenerationChunk, None]", stream)) as chunks:
            return await agenerate_from_stream(cast("AsyncIterator[ChatGenerationChunk]", chunks))

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer several inputs, up to `batch_size` (or `max_concurrency`) of them at once.

        Each is a call of its own to callbacks, caches and errors, with the answer it gets alone.
        """
        configs = get_config_list(config, len(inputs))
        if (size := self._calls_at_once(configs)) < 2:
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)

        def answer(one: LanguageModelInput, own: RunnableConfig) -> Any:
            try:
                return self.invoke(one, own, **kwargs)
            except Exception as error:
                if return_exceptions:
                    return error
                raise

        with shared_batch(size) as shared:
            futures = [
                shared.threads.submit(copy_context().run, answer, one, own)
                for one, own in zip(inputs, configs, strict=True)
            ]
            return [future.result() for future in futures]

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """`batch` for asyncio; cancelling it stops the model."""
        configs = get_config_list(config, len(inputs))
        if (size := self._calls_at_once(configs)) < 2:
            return await super().abatch(
                inputs, config, return_exceptions=return_exceptions, **kwargs
            )

        async def answer(one: LanguageModelInput, own: RunnableConfig) -> Any:
            try:
                return await self.ainvoke(one, own, **kwargs)
            except Exception as error:
                if return_exceptions:
                    return error
                raise

        with shared_batch(size):
            calls = zip(inputs, configs, strict=True)
            return list(await asyncio.gather(*(answer(one, own) for one, own in calls)))

    def _calls_at_once(self, configs: Sequence[RunnableConfig]) -> int:
        if len(configs) < 2:
            return len(configs)
        return min(self.batch_size, configs[0].get("max_concurrency") or self.batch_size)

    def get_token_ids(self, text: str) -> list[int]:
        """Ids of a text by the model's own tokenizer, without prompt format."""
        return self.open().tokenizer.encode(text)

    def prompt_ids(self, messages: Sequence[BaseMessage]) -> list[int]:
        """Ids of the exact prompt that these messages become."""
        return _prompt_ids(self.open(), messages)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Length of the exact prompt that these messages become."""
        if tools:
            raise NotImplementedError(_NO_TOOLS)
        return len(_prompt_ids(self.open(), messages))

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        """Not supported; raises NotImplementedError, as LangChain's agents expect."""
        raise NotImplementedError(_NO_TOOLS)

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        """Not supported; raises NotImplementedError."""
        raise NotImplementedError(_NO_TOOLS)


def _prompt_ids(engine: Engine, messages: Sequence[BaseMessage]) -> list[int]:
    turns = [_with_true_ids(engine, turn) for turn in prompt_turns(messages)]
    return engine.tokenizer.encode_chat(turns)


def _with_true_ids(engine: Engine, turn: ChatTurn) -> ChatTurn:
    """Kept ids count only while they still say what the message says: texts get edited."""
    if turn.token_ids is None:
        return turn
    if engine.tokenizer.decode(turn.token_ids).strip() == turn.text.strip():
        return turn
    return ChatTurn(turn.role, turn.text)


def _chunk(delta: GenerationDelta, token_ids: list[int], model_name: str) -> ChatGenerationChunk:
    """A delta as LangChain has it. Metadata stands on the last one only, since chunks add up."""
    if delta.finish_reason is None:
        return ChatGenerationChunk(message=AIMessageChunk(content=delta.text))
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content=delta.text,
            additional_kwargs={TOKEN_IDS: list(token_ids)},
            response_metadata={"finish_reason": delta.finish_reason, "model_name": model_name},
            usage_metadata=usage_metadata(delta.usage) if delta.usage else None,
            chunk_position="last",
        )
    )


def usage_metadata(usage: Usage) -> UsageMetadata:
    """Token counts as LangChain names them."""
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )
