"""A loaded model: checkpoint folder in, streamed answers out."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from glm_rag.engine.batch import Batch, Finished, Request
from glm_rag.engine.cache import KVCache, column_bytes
from glm_rag.engine.config import ModelConfig
from glm_rag.engine.decode_graph import attach_graphs
from glm_rag.engine.fingerprint import fingerprint
from glm_rag.engine.generate import (
    CUDA_PREFILL_CHUNK,
    PREFILL_CHUNK,
    all_logits,
    mean_log_probability,
    prefill,
)
from glm_rag.engine.generation import EXPECTED_ANSWER, stream_answer
from glm_rag.engine.memory import out_of_memory_as_error, require_memory
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.placement import (
    choose_device,
    choose_dtype,
    choose_kv_dtype,
    set_threads,
)
from glm_rag.engine.prefix_store import PrefixStore
from glm_rag.engine.rotary import RopeTable
from glm_rag.engine.scheduler import Scheduler
from glm_rag.engine.tokenizer import Tokenizer, load_tokenizer
from glm_rag.engine.weights import load_model
from glm_rag.errors import CheckpointError, ConfigError, ContextWindowError, GenerationError
from glm_rag.types import CacheLimits, GenerationDelta, SamplingParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Rows decoded together, unless the caller says otherwise.
MAX_BATCH = 8
_OTHER_CACHE = "the KV cache was made for another model: use new_cache()"


class Engine:
    """A ChatGLM2-form model with its tokenizer. Token ids in, token ids and text out.

    Safe to use from several threads: a generation's state is its own KV cache. Dropping the
    last reference, or closing a generator, frees the memory, but for what `store` keeps.

    Attributes:
        store: computed sequences kept for later prompts, or None; see `keep_sequences`.
        scheduler: lets answers of several threads decode together, or None; see `serve`.
    """

    def __init__(
        self,
        config: ModelConfig,
        model: ChatGLM2Model,
        tokenizer: Tokenizer,
        *,
        name: str = "",
        prefill_chunk: int | None = None,
    ) -> None:
        """Join loaded parts.

        Raises:
            CheckpointError: the tokenizer has ids the model has no rows for.
        """
        if tokenizer.vocab_size > config.padded_vocab_size:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.vocab_size} ids but the model only "
                f"{config.padded_vocab_size} rows: they belong to different models"
            )
        self.config = config
        self.model = model
        self.tokenizer = tokenizer
        self.name = name or config.name
        on_gpu = model.device.type == "cuda"
        self.prefill_chunk = prefill_chunk or (CUDA_PREFILL_CHUNK if on_gpu else PREFILL_CHUNK)
        self.store: PrefixStore | None = None
        self.scheduler: Scheduler | None = None
        self._serving = threading.Lock()

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        dtype: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        rope_mode: str = "auto",
        rope_table: RopeTable = "float32",
        prefix_checkpoint: Path | None = None,
        kv_cache: str = "auto",
        quantize: str = "auto",
        group: int = 32,
        embedding_bits: int = 8,
    ) -> Engine:
        """Load a checkpoint folder: config.json, weights, tokenizer.

        Args:
            dtype: auto, float32, bfloat16 or float16. auto: on the CPU float32 below 10^9
                parameters, else bfloat16; on CUDA bfloat16 where the card has it, else float16.
            device: auto, cpu, cuda or cuda:N.
            threads: CPU threads of the whole process; default: physical cores.
            rope_mode: auto, interpolate or scale_base; see `ModelConfig`.
            rope_table: float32, or checkpoint for the published code's rounding.
            prefix_checkpoint: file or folder of P-tuning v2 weights.
            kv_cache: auto keeps keys and values in the model's dtype (in bfloat16 for a
                quantized model on the CPU), int8 in 8 bit.
            quantize: auto takes the checkpoint as it is; int8 or int4 rounds a 16- or 32-bit one.
            group: columns that share a scale when it is rounded, 32 or 128.
            embedding_bits: 8 or 4 for embedding and output layer of a quantized model; 0 keeps
                them in the model's dtype.

        Raises:
            ModelError: no model there, an unknown kind, a damaged checkpoint or too little
                memory; the message says which.
            ConfigError: an argument is wrong or does not fit this machine.
        """
        folder = Path(folder)
        config = ModelConfig.from_folder(folder, rope_mode=rope_mode)
        config = config.quantized(quantize, group, embedding_bits)
        where = choose_device(device)
        kind = choose_dtype(dtype, where, config)
        kv_dtype = choose_kv_dtype(kv_cache, where, config)
        tokenizer = load_tokenizer(folder, config.tokenizer_kind)
        set_threads(threads)
        with out_of_memory_as_error("for this model"):
            model = load_model(
                folder,
                config,
                dtype=kind,
                device=where,
                rope_table=rope_table,
                prefix_checkpoint=prefix_checkpoint,
            )
            model.kv_dtype = kv_dtype
            attach_graphs(model)
        return cls(config, model, tokenizer, name=config.name or folder.resolve().name)

    @property
    def backend(self) -> str:
        """What multiplies the weights, such as native-avx512 or torch."""
        return self.model.backend.name if self.model.backend else "torch"

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    @property
    def context_window(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.config.seq_length

    def new_cache(self) -> KVCache:
        """An empty cache to pass to several `generate` calls of one conversation."""
        return self.model.new_cache()

    def keep_sequences(self, limits: CacheLimits | None) -> None:
        """Keep computed sequences for later prompts that begin alike; None: keep nothing.

        What is in memory is forgotten when the limits change.
        """
        if limits is None:
            self.store = None
        elif self.store is None or self.store.limits != limits:
            self.store = PrefixStore(limits, fingerprint(self.model))

    def serve(self, max_running: int | None) -> None:
        """Let answers that are asked for at the same time decode together; None: each alone.

        It holds for all `generate` calls without a cache of their own. Running answers go on
        when the number changes, and end with GenerationError when serving does.

        Args:
            max_running: most answers at once; others wait.

        Raises:
            ConfigError: `max_running` is below 1.
        """
        with self._serving:
            if max_running is None:
                if self.scheduler is not None:
                    self.scheduler.close()
                self.scheduler = None
            elif self.scheduler is None:
                self.scheduler = Scheduler(self, max_running=max_running)
            else:
                self.scheduler.max_running = max_running

    @contextmanager
    def batch_scheduler(self, size: int) -> Iterator[Scheduler]:
        """What answers of one batch join: `scheduler`, or without one a scheduler for them alone.

        Args:
            size: most answers at once.
        """
        if (shared := self.scheduler) is not None:
            yield shared
            return
        own = Scheduler(self, max_running=size)
        try:
            yield own
        finally:
            own.close()

    def read(self, token_ids: Sequence[int], base: KVCache | None = None) -> KVCache:
        """Compute a sequence without answering it; errors as for `generate`.

        Args:
            base: its common beginning with the ids is copied and not computed again.
        """
        ids = list(token_ids)
        self._check_prompt(ids)
        if base is not None and not base.fits(self.model.new_cache()):
            raise ConfigError(_OTHER_CACHE)
        self.require_cache(len(ids), held=0 if base is None else base.num_bytes)
        cache = self.new_cache() if base is None else base.fork(base.common_prefix(ids))
        cache.reserve(cache.num_prefix + len(ids))
        if rest := ids[cache.num_tokens :]:
            with out_of_memory_as_error("for these tokens"):
                prefill(self.model, rest, cache, self.prefill_chunk)
        return cache

    def score(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> float:
        """Mean log-probability (natural, per token) of a continuation of a prompt.

        What the engine's store holds of the prompt is not computed again, and the prompt is
        kept for later ones.

        Raises:
            ConfigError, ContextWindowError, ModelError: as for `generate`; a continuation is
                needed, too.
            GenerationError: the model computed NaN or infinite logits.
        """
        prompt, said = list(prompt_ids), list(continuation_ids)
        self._check_ids(prompt)
        if not said:
            raise ConfigError("the continuation is empty: give at least one token")
        self._check_prompt([*prompt, *said])
        self.require_cache(len(prompt) + len(said))
        cache = self.new_cache()
        if self.store is not None:
            room = cache.num_prefix + len(prompt) + len(said)
            cache = self.store.start(prompt, self.model.new_cache, room=room)
        with out_of_memory_as_error("for this continuation"):
            mean = mean_log_probability(self.model, prompt, said, cache, self.prefill_chunk)
        if self.store is not None:
            cache.truncate(len(prompt))
            self.store.keep(cache)
        if not math.isfinite(mean):
            raise GenerationError("the model computed NaN or infinite logits")
        return mean

    def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        cache: KVCache | None = None,
    ) -> Generator[GenerationDelta, None, None]:
        """Stream an answer. Arguments are checked at once, computing starts with the first item.

        While the engine serves, an answer without a cache of its own joins those that run at
        once, and any thread may close it.

        Args:
            prompt_ids: from the tokenizer's `encode_chat` or `encode_prompt`.
            params: `max_tokens` is clipped to what the window leaves.
            cache: keeps the conversation between calls (`new_cache`): what its tokens have in
                common with the beginning of the prompt is not computed again. One call at a time.
                Default: the engine's store serves and keeps, if it has one.

        Yields:
            Deltas; the last one has `finish_reason` and `usage`.

        Raises:
            ContextWindowError: the prompt alone fills the window.
            ConfigError: an empty prompt, ids of another model, or a cache of another model.
            ModelError: the cache would not fit into memory.
            GenerationError: the model computed NaN or infinite logits.
        """
        # Read once: another thread may end serving meanwhile.
        if cache is None and (scheduler := self.scheduler) is not None:
            return scheduler.stream(prompt_ids, params)
        if cache is not None and not cache.fits(self.model.new_cache()):
            raise ConfigError(_OTHER_CACHE)
        held = 0 if cache is None else cache.num_bytes
        prompt, params = self.checked(prompt_ids, params, held=held)
        if cache is None and self.store is not None:
            return self._stream_stored(self.store, prompt, params)
        return self._stream(prompt, params, cache or self.new_cache())

    def checked(
        self, prompt_ids: Sequence[int], params: SamplingParams, *, held: int = 0
    ) -> tuple[list[int], SamplingParams]:
        """Prompt and parameters as they are computed: `max_tokens` clipped to the window.

        Args:
            held: bytes of KV caches that may be counted as free.

        Raises:
            ContextWindowError, ConfigError, ModelError: as `generate`.
        """
        prompt = list(prompt_ids)
        self._check_prompt(prompt)
        room = self.context_window - len(prompt)
        params = replace(params, max_tokens=min(params.max_tokens, room))
        self.require_cache(len(prompt) + params.max_tokens, held=held)
        return prompt, params

    def _stream(
        self, prompt: list[int], params: SamplingParams, cache: KVCache
    ) -> Generator[GenerationDelta, None, None]:
        with out_of_memory_as_error("for this answer"):
            yield from stream_answer(
                self.model, self.tokenizer, prompt, params, cache, chunk=self.prefill_chunk
            )

    def _stream_stored(
        self, store: PrefixStore, prompt: list[int], params: SamplingParams
    ) -> Generator[GenerationDelta, None, None]:
        """Begin with what is kept, and keep the sequence, broken off or not; not after an error."""
        prefix = 0 if self.model.prefix is None else self.model.prefix.shape[3]
        room = prefix + len(prompt) + min(params.max_tokens, EXPECTED_ANSWER)
        cache = store.start(prompt, self.model.new_cache, room=room)
        try:
            yield from self._stream(prompt, params, cache)
        except GeneratorExit:
            store.keep(cache)
            raise
        store.keep(cache)
        store.save(cache)

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams],
        *,
        batch_size: int = MAX_BATCH,
    ) -> Generator[tuple[int, GenerationDelta], None, None]:
        """Stream several answers at once; each is what `generate` gives for its prompt alone.

        In 16 bit and with quantized weights, rounding may tell nearly equal ids apart in another
        way than alone.

        Args:
            params: for all prompts, or one for each. `max_tokens` is clipped as in `generate`.
            batch_size: most answers at once; fewer where their KV caches would not fit into
                half of the free memory. The others wait.

        Yields:
            The number of a prompt and a delta of its answer.

        Raises:
            As `generate`, at once and for all, if any prompt is wrong.
        """
        own = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        pairs = zip(prompts, own, strict=True)
        return self._stream_batch([self.checked(*pair) for pair in pairs], batch_size)

    def _stream_batch(
        self, asked: list[tuple[list[int], SamplingParams]], batch_size: int
    ) -> Generator[tuple[int, GenerationDelta], None, None]:
        came: deque[tuple[int, GenerationDelta | Finished | Exception]] = deque()
        batch = Batch(batch_size)
        for number, pair in enumerate(asked):
            batch.waiting.append(Request(*pair, put=partial(_collect, came, number)))
        while came or not batch.is_empty:
            if not came:
                batch.step(self)
                continue
            number, item = came.popleft()
            if isinstance(item, Exception):
                raise item
            if isinstance(item, GenerationDelta):
                yield number, item
            else:
                item.save_in(self.store)

    def check_prompt(self, prompt_ids: Sequence[int]) -> None:
        """Raise what `generate` would raise for this prompt."""
        self._check_prompt(list(prompt_ids))

    def logits(self, token_ids: Sequence[int]) -> Tensor:
        """Float32 logits `[S, V]` after each of S tokens; errors as for `generate`."""
        ids = list(token_ids)
        if len(ids) > self.context_window:
            raise ContextWindowError(_too_long(len(ids), self.context_window))
        self._check_ids(ids)
        with out_of_memory_as_error("for these logits"):
            return all_logits(self.model, ids, self.prefill_chunk)

    def _check_prompt(self, prompt: Sequence[int]) -> None:
        if len(prompt) >= self.context_window:
            raise ContextWindowError(_too_long(len(prompt), self.context_window))
        self._check_ids(prompt)

    def _check_ids(self, ids: Sequence[int]) -> None:
        if not ids:
            raise ConfigError("the prompt is empty: give at least one token")
        low, high = min(ids), max(ids)
        if low < 0 or high >= self.config.padded_vocab_size:
            wrong = low if low < 0 else high
            raise ConfigError(f"token id {wrong} is not in this model's vocabulary")

    def cache_bytes(self, num_tokens: int) -> int:
        """Bytes that the KV cache of one sequence takes."""
        return num_tokens * column_bytes(self.config, self.model.kv_dtype or self.dtype)

    def require_cache(self, num_tokens: int, *, held: int = 0) -> None:
        """Raise ModelError unless the KV cache of so many tokens fits into memory.

        Args:
            held: bytes that may be counted as free.
        """
        needed = self.cache_bytes(num_tokens) - held
        require_memory(needed, self.device, f"the KV cache of {num_tokens} tokens")


def _collect(
    came: deque[tuple[int, GenerationDelta | Finished | Exception]],
    number: int,
    item: GenerationDelta | Finished | Exception,
) -> None:
    came.append((number, item))


def _too_long(num_tokens: int, window: int) -> str:
    return (
        f"the prompt has {num_tokens} tokens and the model's context window {window}: "
        "shorten it or use fewer passages"
    )
