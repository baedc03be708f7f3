"""Answers that decode together: they join and leave between any two steps."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from glm_rag.engine.cache import KVCache
from glm_rag.engine.generate import decode_together
from glm_rag.engine.generation import EXPECTED_ANSWER, Generation
from glm_rag.engine.memory import available_bytes, first_line, out_of_memory_as_error
from glm_rag.errors import GenerationError, GlmRagError
from glm_rag.types import GenerationDelta, SamplingParams

if TYPE_CHECKING:
    from torch import Tensor

    from glm_rag.engine.engine import Engine
    from glm_rag.engine.prefix_store import PrefixStore

# Prompt tokens read in one step: so long running answers wait, and who leaves keeps its place.
# On a CPU larger chunks are no faster.
SHARED_CHUNK = 128
SHARED_CUDA_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Finished:
    """Comes behind the last delta: the sequence that the engine's store may save to a file, if it
    has files. A reader that is slow would hold its memory for nothing."""

    cache: KVCache | None

    def save_in(self, store: PrefixStore | None) -> None:
        """Write the sequence to its file, in the thread of whoever takes the answer."""
        if store is not None and self.cache is not None:
            store.save(self.cache)


@dataclass(eq=False, slots=True)
class Request:
    """A prompt that was checked, and whom its answer goes to.

    Attributes:
        params: `max_tokens` fits into the window.
        put: takes the deltas and then `Finished`, or the error that ended the answer.
        is_closed: nobody wants the rest. Any thread may set it.
    """

    prompt: list[int]
    params: SamplingParams
    put: Callable[[GenerationDelta | Finished | Exception], None]
    is_closed: bool = False

    @property
    def num_tokens(self) -> int:
        """Most that prompt and answer take."""
        return len(self.prompt) + self.params.max_tokens


@dataclass(slots=True)
class Totals:
    """What was computed so far; `finished` counts answers by why they ended."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)


class Batch:
    """Requests that wait and requests that run. One thread calls `step`, others may add.

    First come, first served: who waits for memory lets nobody pass. Prompts are read one after
    another and in chunks, so that running answers go on meanwhile, and every sequence has its own
    KV cache, so that joining and leaving copy nothing but a beginning that is shared.

    Attributes:
        max_running: most answers at once.
    """

    def __init__(self, max_running: int) -> None:
        self.max_running = max_running
        self.waiting: deque[Request] = deque()
        self.totals = Totals()
        self._running: dict[Request, Generation] = {}  # in the order of their coming

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits or runs."""
        return not self.waiting and not self._running

    @property
    def num_running(self) -> int:
        """Answers that have a place."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Answers that have none yet."""
        return sum(not request.is_closed for request in list(self.waiting))

    @property
    def num_bytes(self) -> int:
        """Of the KV caches of running answers."""
        return sum(running.cache.num_bytes for running in list(self._running.values()))

    def step(self, engine: Engine) -> None:
        """Let go who left, read a piece of prompts of those who fit, decode once."""
        for request in [request for request in self._running if request.is_closed]:
            with self._failing(request):
                self._leave(engine, request, "closed")
        self._read(engine)
        self._decode(engine)

    def fail(self, message: str) -> None:
        """End all that run or wait, each with a GenerationError of its own."""
        for request in [*self._running, *self.waiting]:
            self._fail(request, GenerationError(message))
        self.waiting.clear()

    # ------------------------------------------------------------ coming and going

    def _admit(self, engine: Engine) -> Request | None:
        """Give the next in line its place, if there is one and memory for it."""
        while self.waiting and len(self._running) < self.max_running:
            request = self.waiting[0]
            if not request.is_closed:
                if not self._fits(engine, request):
                    return None
                with self._failing(request):
                    self._running[request] = self._start(engine, request)
            self.waiting.popleft()
            if request in self._running:
                return request
        return None

    def _fits(self, engine: Engine, request: Request) -> bool:
        """Whether it can be computed to its end beside what runs; alone it is tried in any case.

        Half of the free memory is for activations and for the copies of caches that grow.
        """
        free = available_bytes(engine.device)
        if free is None or not self._running:
            return True
        promised = sum(
            max(engine.cache_bytes(other.num_tokens) - running.cache.num_bytes, 0)
            for other, running in self._running.items()
        )
        return engine.cache_bytes(request.num_tokens) + promised <= free // 2

    def _start(self, engine: Engine, request: Request) -> Generation:
        engine.require_cache(request.num_tokens)
        model = engine.model
        if engine.store is None:
            cache = model.new_cache()
        else:
            prefix = 0 if model.prefix is None else model.prefix.shape[3]
            expected = min(request.params.max_tokens, EXPECTED_ANSWER)
            room = prefix + len(request.prompt) + expected
            others = [running.cache for running in self._running.values()]
            cache = engine.store.start(request.prompt, model.new_cache, room=room, others=others)
        started = Generation(model, engine.tokenizer, request.prompt, request.params, cache)
        self.totals.cached_tokens += started.usage.cached_tokens
        return started

    def _leave(self, engine: Engine, request: Request, why: str) -> None:
        """Keep the sequence for later prompts, as an answer alone does when it is closed."""
        generation = self._running.pop(request)
        generation.close()
        self.totals.finished[why] += 1
        store = engine.store
        if store is not None:
            store.keep(generation.cache)
        has_files = store is not None and store.files is not None
        if not request.is_closed:
            request.put(Finished(generation.cache if has_files else None))

    def _fail(self, request: Request, error: Exception) -> None:
        self._running.pop(request, None)
        self.totals.finished["error"] += 1
        request.put(error)

    @contextmanager
    def _failing(self, *requests: Request) -> Iterator[None]:
        """What goes wrong inside ends these answers and no other."""
        try:
            with out_of_memory_as_error("for these answers"):
                yield
        except Exception as error:  # noqa: BLE001 - whatever a pass raises
            for request in requests:
                self._fail(request, _own(error, alone=len(requests) == 1))

    # ------------------------------------------------------------ computing

    def _read(self, engine: Engine) -> None:
        """Prompts in the order of their coming, as far as the chunk goes.

        One begins when those before it are read: what it shares with them is not computed again.
        """
        left = self._chunk(engine)
        while left > 0 and (request := self._unread() or self._admit(engine)) is not None:
            generation = self._running[request]
            unread = generation.num_unread
            with self._failing(request):
                logits = generation.read(min(unread, left))
                self.totals.prompt_tokens += unread - generation.num_unread
                if logits is not None:
                    self._take(engine, request, logits)
            left -= unread

    def _unread(self) -> Request | None:
        """The answer whose prompt is begun and not yet read; there is one at most."""
        unread = (request for request, running in self._running.items() if running.num_unread)
        return next(unread, None)

    def _chunk(self, engine: Engine) -> int:
        if engine.device.type != "cuda":
            return min(SHARED_CHUNK, engine.prefill_chunk)
        nobody_waits = all(running.num_unread for running in self._running.values())
        return engine.prefill_chunk if nobody_waits else SHARED_CUDA_CHUNK

    def _decode(self, engine: Engine) -> None:
        """One pass for all whose prompts are read; drafts fill it where they pay."""
        asked = self._next_ids()
        if not asked:
            return
        logits: Tensor | None = None
        with self._failing(*asked):
            shares = [(ids, self._running[request].cache) for request, ids in asked.items()]
            # The rows go to the CPU, where ids are drawn, in one piece.
            logits = decode_together(engine.model, shares)[:, : engine.tokenizer.vocab_size].cpu()
        if logits is None:
            return
        counts = [len(ids) for ids in asked.values()]
        for request, rows in zip(asked, torch.split(logits, counts), strict=True):
            with self._failing(request):
                self._take(engine, request, rows)

    def _next_ids(self) -> dict[Request, list[int]]:
        """What each answer wants computed. A cache that cannot grow ends its own answer only."""
        ready = [request for request, running in self._running.items() if not running.num_unread]
        asked: dict[Request, list[int]] = {}
        rows = len(ready)
        for request in ready:
            with self._failing(request):
                generation = self._running[request]
                ids = generation.next_ids(others=rows - 1)
                generation.cache.reserve(generation.cache.length + len(ids))
                asked[request] = ids
                rows += len(ids) - 1
        return asked

    def _take(self, engine: Engine, request: Request, logits: Tensor) -> None:
        generation = self._running[request]
        for delta in generation.take(logits):
            request.put(delta)
            self.totals.generated_tokens += len(delta.token_ids)
            if delta.finish_reason is not None:
                self._leave(engine, request, delta.finish_reason)


def _own(error: Exception, *, alone: bool) -> Exception:
    """The error for one of the answers it ends: several threads cannot raise one object."""
    if isinstance(error, GlmRagError):
        return error if alone else type(error)(str(error))
    made = GenerationError(f"the step that computed this answer failed: {first_line(error)}")
    made.__cause__ = error
    return made
