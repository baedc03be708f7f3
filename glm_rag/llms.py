"""`ChatGLM2LLM`: the engine as a LangChain completion model, for raw prompts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models.llms import LLM
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables.config import run_in_executor

from glm_rag.local_model import LocalModel, in_threads
from glm_rag.types import GenerationDelta

if TYPE_CHECKING:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForLLMRun,
        CallbackManagerForLLMRun,
    )


class ChatGLM2LLM(LocalModel, LLM):
    """Continues a raw text: no chat format, as for code completion or few-shot prompts.

    Settings and errors as for `ChatGLM2`. The last streamed chunk carries `finish_reason`,
    `model_name` and `usage` in its `generation_info`.
    """

    @property
    def _llm_type(self) -> str:
        return "chatglm2-completion"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self._parameters()

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        deltas = self._deltas(prompt, stop, kwargs)
        yield from _chunks(deltas, self.model_name(kwargs.get("model")), run_manager)

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        manager = None if run_manager is None else run_manager.get_sync()
        deltas = await run_in_executor(None, self._deltas, prompt, stop, kwargs)
        chunks = _chunks(deltas, self.model_name(kwargs.get("model")), manager)
        async with aclosing(in_threads(chunks, deltas)) as items:
            async for chunk in items:
                yield chunk

    def _deltas(
        self, prompt: str, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Generator[GenerationDelta, None, None]:
        params = self.sampling(stop, kwargs)
        engine = self.open(kwargs.get("model"))
        return self.run(engine, engine.tokenizer.encode_prompt(prompt), params)

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if len(prompts) < 2:
            return super()._generate(prompts, stop, run_manager, **kwargs)
        params = self.sampling(stop, kwargs)
        engine = self.open(kwargs.get("model"))
        prompt_ids = [engine.tokenizer.encode_prompt(prompt) for prompt in prompts]
        answers: list[GenerationChunk] = [GenerationChunk(text="") for _ in prompts]
        batch = engine.generate_batch(prompt_ids, params, batch_size=self.batch_size)
        for number, delta in batch:
            answers[number] += _chunk(delta, self.model_name(kwargs.get("model")))
        return LLMResult(generations=[[answer] for answer in answers])

    def _call(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        return "".join(chunk.text for chunk in self._stream(prompt, stop, run_manager, **kwargs))

    async def _acall(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        # By way of the stream: a cancelled call then stops after the step in progress.
        stream = self._astream(prompt, stop, run_manager, **kwargs)
        async with aclosing(cast("AsyncGenerator[GenerationChunk, None]", stream)) as chunks:
            return "".join([chunk.text async for chunk in chunks])

    def get_token_ids(self, text: str) -> list[int]:
        """Ids of a text by the model's own tokenizer, without the leading ids of a prompt."""
        return self.open().tokenizer.encode(text)


def _chunks(
    deltas: Generator[GenerationDelta, None, None],
    model_name: str,
    run_manager: CallbackManagerForLLMRun | None,
) -> Iterator[GenerationChunk]:
    with closing(deltas):
        for delta in deltas:
            if not delta.text and delta.finish_reason is None:
                continue
            chunk = _chunk(delta, model_name)
            if run_manager is not None:
                run_manager.on_llm_new_token(delta.text, chunk=chunk)
            yield chunk


def _chunk(delta: GenerationDelta, model_name: str) -> GenerationChunk:
    if delta.finish_reason is None or delta.usage is None:
        return GenerationChunk(text=delta.text)
    usage = delta.usage
    return GenerationChunk(
        text=delta.text,
        generation_info={
            "finish_reason": delta.finish_reason,
            "model_name": model_name,
            "usage": {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cached_tokens": usage.cached_tokens,
            },
        },
    )
