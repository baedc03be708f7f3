"""A loaded model: checkpoint folder in, streamed answers out."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from glm_rag.engine.batch import stream_batch
from glm_rag.engine.cache import KVCache, column_bytes
from glm_rag.engine.config import ModelConfig
from glm_rag.engine.decode_graph import attach_graphs
from glm_rag.engine.fingerprint import fingerprint
from glm_rag.engine.generate import (
    CUDA_PREFILL_CHUNK,
    EXPECTED_ANSWER,
    PREFILL_CHUNK,
    all_logits,
    mean_log_probability,
    prefill,
    stream_answer,
)
from glm_rag.engine.memory import available_bytes, out_of_memory_as_error, require_memory
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.placement import (
    choose_device,
    choose_dtype,
    choose_kv_dtype,
    set_threads,
)
from glm_rag.engine.prefix_store import PrefixStore
from glm_rag.engine.rotary import RopeTable
from glm_rag.engine.tokenizer import Tokenizer, load_tokenizer
from glm_rag.engine.weights import load_model
from glm_rag.errors import CheckpointError, ConfigError, ContextWindowError, GenerationError
from glm_rag.types import CacheLimits, GenerationDelta, SamplingParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Rows decoded together, unless the caller says otherwise.
MAX_BATCH = 8


class Engine:
    """A ChatGLM2-form model with its tokenizer. Token ids in, token ids and text out.

    Safe to use from several threads: a generation's state is its own KV cache. Dropping the
    last reference, or closing a generator, frees the memory, but for what `store` keeps.

    Attributes:
        store: computed sequences kept for later prompts, or None; see `keep_sequences`.
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

    def read(self, token_ids: Sequence[int], base: KVCache | None = None) -> KVCache:
        """Compute a sequence without answering it; errors as for `generate`.

        Args:
            base: its common beginning with the ids is copied and not computed again.
        """
        ids = list(token_ids)
        self._check_prompt(ids)
        self._check_cache(base, len(ids))
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
        self._check_cache(None, len(prompt) + len(said))
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
        prompt = list(prompt_ids)
        self._check_prompt(prompt)
        room = self.context_window - len(prompt)
        params = replace(params, max_tokens=min(params.max_tokens, room))
        self._check_cache(cache, len(prompt) + params.max_tokens)
        if cache is None and self.store is not None:
            return self._stream_stored(self.store, prompt, params)
        return self._stream(prompt, params, cache)

    def _stream(
        self, prompt: list[int], params: SamplingParams, cache: KVCache | None
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
        asked = [list(prompt) for prompt in prompts]
        for prompt in asked:
            self._check_prompt(prompt)
        own = [params] * len(asked) if isinstance(params, SamplingParams) else list(params)
        clipped = [
            replace(one, max_tokens=min(one.max_tokens, self.context_window - len(prompt)))
            for one, prompt in zip(own, asked, strict=True)
        ]
        return self._stream_batches(asked, clipped, batch_size)

    def _stream_batches(
        self, prompts: list[list[int]], params: list[SamplingParams], batch_size: int
    ) -> Generator[tuple[int, GenerationDelta], None, None]:
        start = 0
        while start < len(prompts):
            lengths = [
                len(prompt) + one.max_tokens
                for prompt, one in zip(prompts[start:], params[start:], strict=True)
            ]
            size = self._fitting(lengths[:batch_size])
            part = slice(start, start + size)
            batch = stream_batch(
                self.model, self.tokenizer, prompts[part], params[part], chunk=self.prefill_chunk
            )
            with out_of_memory_as_error("for these answers"):
                for number, delta in batch:
                    yield start + number, delta
            start += size

    def _fitting(self, lengths: Sequence[int]) -> int:
        """How many sequences of these lengths, padded to the longest, fit; at least one."""
        free = available_bytes(self.device)
        if free is None:
            return len(lengths)
        per_token = column_bytes(self.config, self.model.kv_dtype or self.dtype)
        # The other half is for activations, and for the copy made when rows leave.
        columns = free // 2 // per_token
        sizes = range(1, len(lengths) + 1)
        return max((n for n in sizes if n * max(lengths[:n]) <= columns), default=1)

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

    def _check_cache(self, cache: KVCache | None, tokens: int) -> None:
        have = 0
        if cache is not None:
            if not cache.fits(self.model.new_cache()):
                raise ConfigError("the KV cache was made for another model: use new_cache()")
            have = cache.num_bytes
        per_token = column_bytes(self.config, self.model.kv_dtype or self.dtype)
        what = f"the KV cache of {tokens} tokens"
        require_memory(tokens * per_token - have, self.device, what)


def _too_long(num_tokens: int, window: int) -> str:
    return (
        f"the prompt has {num_tokens} tokens and the model's context window {window}: "
        "shorten it or use fewer passages"
    )
