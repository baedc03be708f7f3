"""`RemoteChat`: langchain-openai's ChatOpenAI, with this program's counting and errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, cast

from langchain_openai import ChatOpenAI
from pydantic import Field

from glm_rag.remote_model import RemoteModel, changed_options, request_options
from glm_rag.remote_server import RemoteServer
from glm_rag.settings import GenerationSettings

if TYPE_CHECKING:
    from langchain_core.outputs import ChatGenerationChunk, ChatResult


class RemoteChat(RemoteModel, ChatOpenAI):
    """A chat model at `/v1/chat/completions`; the server writes the prompt.

    Raises:
        ConfigError, ContextWindowError, ModelNotFoundError, ModelError: see
            `RemoteServer.translated`.
    """

    server: Any = Field(default=None, exclude=True, repr=False)
    generation: GenerationSettings = Field(default=GenerationSettings(), exclude=True, repr=False)

    @classmethod
    def of(cls, server: RemoteServer, generation: GenerationSettings) -> RemoteChat:
        """The model of a server with these sampling settings."""
        options = request_options(generation)
        return cls(
            server=server,
            generation=generation,
            model=server.model,
            base_url=server.url,
            api_key=server.settings.api_key or "none",
            root_client=server.client,
            client=server.client.chat.completions,
            root_async_client=server.async_client,
            async_client=server.async_client.chat.completions,
            stream_usage=True,
            use_responses_api=False,
            stream_chunk_timeout=server.settings.timeout,
            stop=list(generation.stop) or None,
            openai_proxy="",
            **options,
        )

    def _get_request_payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super()._get_request_payload(*args, **changed_options(self.generation, kwargs))

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        stream = cast(
            "Generator[ChatGenerationChunk, None, None]", super()._stream(*args, **kwargs)
        )
        with self.server.streamed() as came, closing(stream) as chunks:
            for chunk in chunks:
                came.see(chunk)
                yield chunk

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        stream = super()._astream(*args, **kwargs)
        with self.server.streamed() as came:
            async with aclosing(
                cast("AsyncGenerator[ChatGenerationChunk, None]", stream)
            ) as chunks:
                async for chunk in chunks:
                    came.see(chunk)
                    yield chunk

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        with self.server.translated():
            return super()._generate(*args, **kwargs)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        with self.server.translated():
            return await super()._agenerate(*args, **kwargs)
