"""How fast a loaded model reads and writes on this machine, and how much memory it takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch

from glm_rag.engine.cache import KVCache
from glm_rag.engine.engine import Engine
from glm_rag.engine.generate import decode, prefill

_WARMUP_TOKENS = 16
_DECODE_TOKENS = 16
_MAX_RUNS = 3
_ENOUGH_SECONDS = 10.0  # longer than this, one run says as much as three
_FILL_CHUNK = 1024
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What to measure.

    Attributes:
        prompts: lengths of prompts to read, ascending.
        contexts: tokens already in the KV cache when writing is measured, ascending.
        max_seconds: a prompt expected to take longer is left out.
        runs: most runs of one prompt length; the median counts.
    """

    prompts: tuple[int, ...] = (512, 2048, 8192)
    contexts: tuple[int, ...] = (0, 2048, 8192)
    decode_tokens: int = _DECODE_TOKENS
    max_seconds: float = 600.0
    runs: int = _MAX_RUNS


QUICK = BenchPlan(prompts=(512,), contexts=(0, 2048), decode_tokens=8, max_seconds=60.0, runs=1)


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second at one size.

    Attributes:
        tokens: length of the prompt read, or of the context written behind.
        seconds: median of one prompt, or of one written token.
    """

    tokens: int
    seconds: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Figures of one model in one process; sizes in bytes.

    Attributes:
        backend: what computes the matrix products.
        quantization: bits and group of the weights, empty for weights of `dtype`.
        load_seconds: opening the checkpoint; the libraries were imported before.
        warmup_seconds: the first forward pass, which reads mapped weights from the disk.
        rss_bytes: resident memory after loading and warming up; 0 where the system does not tell.
        peak_rss_bytes: most resident memory of the process so far.
        skipped: what was left out, and why.
    """

    model: str
    backend: str
    device: str
    dtype: str
    quantization: str
    threads: int
    context_window: int
    load_seconds: float
    warmup_seconds: float
    prefill: tuple[Speed, ...]
    decode: tuple[Speed, ...]
    rss_bytes: int
    peak_rss_bytes: int
    skipped: tuple[str, ...]


def bench(
    open_engine: Callable[[], Engine],
    plan: BenchPlan | None = None,
    on_step: Callable[[str], None] = lambda _step: None,
) -> BenchReport:
    """Load a model and measure it; `on_step` is told what comes next.

    Raises:
        ModelError: the model cannot be loaded, or a cache would not fit into memory.
    """
    plan = plan or BenchPlan()
    on_step("loading")
    started = time.perf_counter()
    engine = open_engine()
    loaded = time.perf_counter()
    on_step("warming up")
    _prefill_seconds(engine, min(_WARMUP_TOKENS, engine.context_window))
    warm = time.perf_counter()
    rss = _memory("VmRSS")
    skipped: list[str] = []
    read = tuple(_measure_prefill(engine, plan, on_step, skipped))
    written = tuple(_measure_decode(engine, plan, on_step, skipped))
    return BenchReport(
        model=engine.name,
        backend=engine.backend,
        device=str(engine.device),
        dtype=str(engine.dtype).removeprefix("torch."),
        quantization=quantization(engine),
        threads=torch.get_num_threads(),
        context_window=engine.context_window,
        load_seconds=loaded - started,
        warmup_seconds=warm - loaded,
        prefill=read,
        decode=written,
        rss_bytes=rss,
        peak_rss_bytes=_memory("VmHWM"),
        skipped=tuple(skipped),
    )


def quantization(engine: Engine) -> str:
    """Such as `int4, group 32`; empty where weights are floating point numbers."""
    kind = engine.config.quantization
    return f"int{kind.bits}, group {kind.group}" if kind else ""


def _measure_prefill(
    engine: Engine, plan: BenchPlan, on_step: Callable[[str], None], skipped: list[str]
) -> Iterator[Speed]:
    slowest = 0.0  # seconds per token so far
    for size in plan.prompts:
        expected = size * slowest
        if size > engine.context_window:
            skipped.append(f"prefill {size}: the window holds {engine.context_window}")
            continue
        if expected > plan.max_seconds:
            skipped.append(f"prefill {size}: would take about {expected:.0f} s")
            continue
        on_step(f"reading a prompt of {size} tokens")
        seconds = statistics.median(_repeat(partial(_prefill_seconds, engine, size), plan.runs))
        slowest = max(slowest, seconds / size)
        yield Speed(size, seconds, size / seconds)


def _measure_decode(
    engine: Engine, plan: BenchPlan, on_step: Callable[[str], None], skipped: list[str]
) -> Iterator[Speed]:
    for context in plan.contexts:
        if context + plan.decode_tokens >= engine.context_window:
            skipped.append(f"decode at {context}: the window holds {engine.context_window}")
            continue
        on_step(f"writing behind {context} tokens")
        seconds = statistics.median(_decode_seconds(engine, context, plan.decode_tokens))
        yield Speed(context, seconds, 1 / seconds)


def _repeat(run: Callable[[], float], most: int) -> list[float]:
    """Seconds of up to `most` runs, fewer where they take long."""
    seconds = [run()]
    while len(seconds) < most and sum(seconds) < _ENOUGH_SECONDS:
        seconds.append(run())
    return seconds


def _prefill_seconds(engine: Engine, num_tokens: int) -> float:
    cache = engine.new_cache()
    cache.reserve(cache.num_prefix + num_tokens)
    ids = _random_ids(engine, num_tokens)
    started = time.perf_counter()
    prefill(engine.model, ids, cache, engine.prefill_chunk)
    _wait(engine)
    return time.perf_counter() - started


def _decode_seconds(engine: Engine, context: int, num_tokens: int) -> list[float]:
    """Seconds of each of the greedy tokens behind a context, one pass each."""
    cache = filled_cache(engine, context, room=num_tokens + 1)
    [token_id] = _random_ids(engine, 1)
    ticks = []
    for _ in range(num_tokens + 1):  # the first pass reaches a cache that is not in use yet
        [logits] = decode(engine.model, [token_id], cache)
        token_id = int(logits[: engine.tokenizer.vocab_size].argmax())
        ticks.append(time.perf_counter())
    return [end - start for start, end in pairwise(ticks)]


@torch.inference_mode()
def filled_cache(engine: Engine, num_tokens: int, *, room: int = 0) -> KVCache:
    """A cache that holds random keys and values for `num_tokens` random ids, without prefill.

    Attention costs the same whatever it reads, so speed at a long context needs no long prompt.
    """
    cache = engine.new_cache()
    cache.reserve(cache.num_prefix + num_tokens + room)
    groups, head_dim = engine.config.num_kv_groups, engine.config.kv_channels
    source = torch.Generator(engine.device).manual_seed(0)
    ids = _random_ids(engine, num_tokens)
    for start in range(0, num_tokens, _FILL_CHUNK):
        piece = ids[start : start + _FILL_CHUNK]
        shape = (2, 1, groups, len(piece), head_dim)
        for layer in range(engine.config.num_layers):
            keys, values = torch.randn(
                shape, generator=source, dtype=engine.dtype, device=engine.device
            )
            cache.write(layer, keys, values)
        cache.advance(piece)
    return cache


def _random_ids(engine: Engine, num_tokens: int) -> list[int]:
    source = torch.Generator().manual_seed(num_tokens)
    ids = torch.randint(engine.tokenizer.vocab_size, (num_tokens,), generator=source)
    return ids.tolist()


def _wait(engine: Engine) -> None:
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)


def _memory(field: str) -> int:
    """A figure of this process from /proc (Linux), else 0."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = [line.split() for line in lines if line.startswith(f"{field}:")]
    return int(found[0][1]) * 1024 if found else 0
