"""How many tokens per second do several answers at once get, beside one after another?

    python benchmarks/concurrent_streams.py [--threads N] [--turns N] [--tokens N] [--weights ...]
    python benchmarks/concurrent_streams.py --device cuda [--shape tiny]

The same prompts every time: eight short questions to the small real model, answered greedily by
1, 2, 4 and 8 threads that stream from one engine (`Engine.serve`); a thread takes the next prompt
when its answer is done, so that answers join and leave at different steps. *One after another* is
the engine without a scheduler, with prompt lookup (`drafting`) and without (`plain`); streams draft
where it pays. All ways take their turns (A B A B); figures are medians of tokens per second over
all answers. *Identical*: texts that are those of the plain run.

With `--device cuda`: ChatGLM2-6B's shape with random weights, made on the device; 1, 8 and 32
streams of 512 ids and 128 tokens each, without drafts, since a random model repeats itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from support.record import RESULTS, ROOT, print_table, progress, save, warn_if_busy

from glm_rag.engine.engine import Engine
from glm_rag.types import ChatTurn, SamplingParams

QUESTIONS = (
    "What is photosynthesis?",
    "Tell me about the city of Paris.",
    "How do I bake bread?",
    "Why is the sky blue?",
    "Write a short story about a dog.",
    "Explain gravity to a child.",
    "What are good books for summer?",
    "How does a car engine work?",
)
WEIGHTS = ("float32", "int8", "int4")
STREAMS, CUDA_STREAMS = (1, 2, 4, 8), (1, 8, 32)
CUDA_VARIANTS = ("bfloat16", "int4, group 32")
CUDA_PROMPT, CUDA_TOKENS = 512, 128


@dataclass(frozen=True, slots=True)
class Run:
    """One way to answer all prompts: tokens, seconds, seconds to each first delta, texts."""

    num_tokens: int
    seconds: float
    first: list[float]
    texts: list[str]


@dataclass(slots=True)
class Way:
    """How the prompts are answered, and what every turn gave."""

    name: str
    answer: Callable[[], Run]
    runs: list[Run] = field(default_factory=list)

    @property
    def speed(self) -> float:
        return statistics.median(run.num_tokens / run.seconds for run in self.runs)


def stream(engine: Engine, prompt: list[int], params: SamplingParams) -> tuple[int, float, str]:
    """Tokens, seconds to the first delta, and the text."""
    started = time.perf_counter()
    first, text = 0.0, ""
    for delta in engine.generate(prompt, params):
        first = first or time.perf_counter() - started
        text += delta.text
    if delta.usage is None:
        raise RuntimeError("the last delta has no usage")
    return delta.usage.output_tokens, first, text


def answer_all(
    engine: Engine, prompts: list[list[int]], params: SamplingParams, streams: int | None
) -> Run:
    """Answer the prompts by so many threads; None: one after another, without a scheduler."""
    engine.serve(streams)
    started = time.perf_counter()
    with ThreadPoolExecutor(streams or 1) as threads:
        found = list(threads.map(lambda prompt: stream(engine, prompt, params), prompts))
    seconds = time.perf_counter() - started
    counts, first, texts = zip(*found, strict=True)
    return Run(sum(counts), seconds, list(first), list(texts))


def in_turns(ways: list[Way], turns: int) -> None:
    for turn in range(turns + 1):
        for way in ways:
            run = way.answer()
            if turn:  # the first one warms up
                way.runs.append(run)
        progress(f"turn {turn} of {turns}")


def rows(label: str, ways: list[Way]) -> list[dict[str, Any]]:
    """A row of each way; ratios to the plain and to the drafting single run."""
    plain, expected = ways[0], ways[0].runs[0].texts
    drafting = next((way for way in ways if "drafting" in way.name), None)
    found = []
    for way in ways:
        same = min(sum(map(str.__eq__, run.texts, expected)) for run in way.runs)
        row = {
            "weights": label,
            "answers": way.name,
            "tok/s": round(way.speed, 1),
            "x plain": round(way.speed / plain.speed, 2),
        }
        if drafting is not None:
            row["x drafting"] = round(way.speed / drafting.speed, 2)
        firsts = [statistics.median(run.first) for run in way.runs]
        row["first delta, s"] = round(statistics.median(firsts), 3)
        found.append(row | {"identical": f"{same}/{len(expected)}"})
    return found


def on_cpu(options: argparse.Namespace) -> list[dict[str, Any]]:
    drafting = SamplingParams(max_tokens=options.tokens, temperature=0)
    plain = replace(drafting, speculate=False)
    found = []
    for weights in options.weights:
        engine = Engine.load(
            options.model,
            quantize="auto" if weights == "float32" else weights,
            threads=options.threads,
        )
        prompts = [engine.tokenizer.encode_chat([ChatTurn("user", one)]) for one in QUESTIONS]
        run = partial(answer_all, engine, prompts)
        ways = [
            Way("one after another, plain", partial(run, plain, None)),
            Way("one after another, drafting", partial(run, drafting, None)),
        ]
        ways += [Way(f"{n} streams", partial(run, drafting, n)) for n in STREAMS]
        in_turns(ways, options.turns)
        found += rows(weights, ways)
        print_table(found[-len(ways) :])
    return found


def on_cuda(options: argparse.Namespace) -> list[dict[str, Any]]:
    from gpu_engine import VARIANTS, config_of, greedy, random_engine
    from support.random_models import SHAPES

    found = []
    for name in CUDA_VARIANTS:
        dtype, quantization, kv_dtype = VARIANTS[name]
        config = config_of(SHAPES[options.shape], quantization)
        engine = random_engine(config, dtype, kv_dtype, options.device)
        prompts = [
            [(token * 7 + row) % 250 for token in range(CUDA_PROMPT)]
            for row in range(max(CUDA_STREAMS))
        ]
        run = partial(answer_all, engine, prompts, greedy(CUDA_TOKENS))
        # One stream is as fast for eight prompts as for all of them.
        few = partial(answer_all, engine, prompts[:8], greedy(CUDA_TOKENS))
        ways = [Way("one after another, plain", partial(few, None))]
        ways += [Way(f"{n} streams", partial(few if n == 1 else run, n)) for n in CUDA_STREAMS]
        in_turns(ways, options.turns)
        found += rows(name, ways)
        print_table(found[-len(ways) :])
        del engine, run, few, ways
        torch.cuda.empty_cache()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "models" / "smollm2-135m")
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=WEIGHTS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=("6b", "tiny"), default="6b", help="of --device cuda")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    values: dict[str, Any] = {"load_before": warn_if_busy(), "turns": options.turns}
    if options.device == "cpu":
        values |= {"threads": options.threads, "tokens": options.tokens, "rows": on_cpu(options)}
        name = "concurrent_streams"
    else:
        gpu = torch.cuda.get_device_properties(options.device).name
        values |= {"gpu": gpu, "cuda": torch.version.cuda, "rows": on_cuda(options)}
        name = "concurrent_streams_cuda" + ("" if options.shape == "6b" else f"_{options.shape}")
    print(save(options.out, name, ("glm-rag", "torch", "triton"), values), file=sys.stderr)


if __name__ == "__main__":
    main()
