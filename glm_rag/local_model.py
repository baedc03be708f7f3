"""What the chat model and the completion model share: settings, the engine, sampling."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from inspect import isgenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from glm_rag.breaker import on_break
from glm_rag.config import default_home, explain
from glm_rag.errors import ConfigError
from glm_rag.settings import CacheSettings, ModelSettings
from glm_rag.shared_batch import current_batch
from glm_rag.types import GenerationDelta, SamplingParams

if TYPE_CHECKING:
    from glm_rag.engine.engine import Engine

T = TypeVar("T")

_SAMPLING = tuple(SamplingParams.__dataclass_fields__)
# Standard constructor arguments of LangChain that only matter for models behind an API.
_MEANINGLESS = frozenset({"api_key", "base_url", "max_retries", "streaming", "timeout"})
_TOOLS = frozenset({"tools", "tool_choice", "functions", "function_call", "response_format"})


class LocalModel(BaseModel):
    """A model in this process. Construction is cheap; weights load on first use and are shared.

    Sampling defaults are those of the published model's `chat()`; `temperature=0` is greedy.
    """

    model: str = Field("smollm2-135m", description="registry name or checkpoint folder")
    home: Path | None = Field(None, description="data folder; its models/ holds pulled models")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    threads: int | None = None
    rope_mode: Literal["auto", "interpolate", "scale_base"] = "auto"
    rope_table: Literal["float32", "checkpoint"] = "float32"
    prefix_checkpoint: Path | None = None
    kv_cache: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    quantize: Literal["auto", "int8", "int4"] = "auto"
    group: Literal[32, 128] = 32
    embedding_bits: Literal[0, 4, 8] = 8
    prefix_cache: CacheSettings = Field(
        default_factory=CacheSettings, description="what is kept of computed prompts"
    )

    max_tokens: int = 1024
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 0.8
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: list[str] | None = None
    speculate: bool = True
    loop_guard: bool = True
    batch_size: int = Field(8, ge=1, description="most inputs of one `batch` answered at once")
    max_running: int | None = Field(
        None, ge=1, description="answers of any threads that the engine computes together"
    )

    engine: Any = Field(None, exclude=True, repr=False, description="a loaded engine to use")
    _opened: Any = PrivateAttr(default=None)

    # Hidden from type checkers so that they see the generated signature with its fields.
    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            self._refuse_unknown(values)
            known = {name: values[name] for name in values if name not in _MEANINGLESS}
            try:
                super().__init__(**known)
            except ValidationError as error:
                raise ConfigError(explain(error)) from error
            self.sampling()
            self._settings(self.model)

    @classmethod
    def _refuse_unknown(cls, values: Mapping[str, Any]) -> None:
        for name in values:
            if name not in cls.model_fields and name not in _MEANINGLESS:
                hint = _nearest(name, list(cls.model_fields))
                raise ConfigError(f"{cls.__name__} has no setting `{name}`; {hint}")

    @property
    def context_window(self) -> int:
        """Most tokens of prompt and answer together. Loads the model."""
        return self.open().context_window

    @property
    def num_parameters(self) -> int:
        """Values in all weights, without a prefix. Loads the model."""
        return self.open().config.num_parameters

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by the model's own tokenizer, without prompt format. Loads the model."""
        return self.open().tokenizer.count(text)

    def open(self, model: str | None = None) -> Engine:
        """The engine of this model, loaded now if it was not.

        Args:
            model: another model to open with the same settings, for a per-call override.

        Raises:
            ModelNotFoundError: not pulled yet, or no such folder.
            ModelError: the checkpoint is broken.
            MissingDependencyError: torch is not installed.
        """
        if self.engine is not None:
            if model is not None and model != self.engine.name:
                raise ConfigError(f"an engine was passed in: its model is {self.engine.name!r}")
            return cast("Engine", self.engine)
        if model is not None and model != self.model:
            return self._load(model)
        if self._opened is None:
            self._opened = self._load(self.model)
        return cast("Engine", self._opened)

    def model_name(self, model: str | None = None) -> str:
        """What answers are signed with: the name asked for, or that of an injected engine."""
        return model or (self.model if self.engine is None else self.engine.name)

    def sampling(
        self, stop: Sequence[str] | None = None, overrides: Mapping[str, Any] | None = None
    ) -> SamplingParams:
        """Sampling of one call: own settings, then `overrides`; stop strings add up.

        Raises:
            ConfigError: an unknown override (the nearest known one is named) or a wrong value.
        """
        changed = dict(overrides or {})
        for name in changed:
            _check_override(name)
        values = {name: getattr(self, name) for name in _SAMPLING if name != "stop"}
        stops = [*_strings(self.stop), *_strings(changed.pop("stop", None)), *_strings(stop)]
        values |= {name: value for name, value in changed.items() if name in _SAMPLING}
        try:
            return SamplingParams(**values, stop=tuple(dict.fromkeys(stops)))
        except TypeError as error:
            raise ConfigError(f"wrong type of a sampling setting: {error}") from error

    def run(
        self, engine: Engine, prompt_ids: Sequence[int], params: SamplingParams
    ) -> Generator[GenerationDelta, None, None]:
        """Generate; closing this generator stops the answer and frees its place and cache.

        With `max_running`, answers that are asked for at the same time decode together; then any
        thread may close it, and so does the `Breaker` that it runs in.
        """
        if self.max_running is not None and engine.scheduler is None:
            engine.serve(self.max_running)
        if (shared := current_batch()) is not None:
            answer = shared.stream(engine, prompt_ids, params)
        else:
            answer = engine.generate(prompt_ids, params)
        # Without a scheduler it is a plain generator: its reader computes it, and alone may close.
        if not isgenerator(answer):
            on_break(answer.close)
        return answer

    def _load(self, model: str) -> Engine:
        from glm_rag.models.loading import open_engine

        home = self.home or default_home()
        engine = open_engine(self._settings(model), home / "models")
        # The engine is shared by all who ask for this model: the latest limits hold.
        engine.keep_sequences(self.prefix_cache.limits(home))
        if self.max_running is not None:
            engine.serve(self.max_running)
        return engine

    def _settings(self, model: str) -> ModelSettings:
        names = set(ModelSettings.model_fields) - {"name"}
        try:
            return ModelSettings(name=model, **{name: getattr(self, name) for name in names})
        except ValidationError as error:
            raise ConfigError(explain(error)) from error

    def _parameters(self) -> dict[str, Any]:
        """Everything that changes what the model says; the key of LangChain's caches."""
        names = (*ModelSettings.model_fields, *_SAMPLING)
        values = {name: getattr(self, name) for name in names if name != "name"}
        return {"model": self.model_name(), **values}


async def in_threads(
    chunks: Iterator[T], deltas: Generator[GenerationDelta, None, None]
) -> AsyncGenerator[T, None]:
    """Chunks that are made of an answer's deltas, each waited for in a thread of its own: answers
    that wait for a place would take all threads that the event loop has from those that run.

    Whoever breaks off stops the answer at once, also while it waits for its place or reads its
    prompt. Without a scheduler it stops with its next delta.
    """
    loop, context = asyncio.get_running_loop(), copy_context()
    following = partial(next, chunks, None)
    thread = ThreadPoolExecutor(1, thread_name_prefix="glm-rag-stream")
    try:
        while (item := await loop.run_in_executor(thread, context.run, following)) is not None:
            yield item
    finally:
        with suppress(ValueError):  # a plain generator that is computing
            deltas.close()
        thread.shutdown(wait=False)


def _check_override(name: str) -> None:
    if name in _TOOLS:
        raise ConfigError(f"ChatGLM2 cannot call tools or bind a schema: leave `{name}` out")
    # LangChain passes `stream` along with a call; there is only streaming here.
    if name not in {*_SAMPLING, "model", "stream"}:
        hint = _nearest(name, [*_SAMPLING, "model"])
        raise ConfigError(f"unknown argument `{name}` for a call; {hint}")


def _strings(stop: str | Sequence[str] | None) -> Sequence[str]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else stop


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(known)}"
