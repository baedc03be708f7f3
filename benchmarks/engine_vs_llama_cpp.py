"""Is the engine faster than the one a CPU user would pick today?

    python benchmarks/engine_vs_llama_cpp.py [--threads N] [--turns N] [--group 32] [--cache DIR]

ChatGLM2-6B's shape with random 4-bit weights, once for llama.cpp (Q4_0, repacked: its fastest)
and once converted for this engine. Both run in turns, A B A B, each time as a new process;
figures are medians over the turns. The first run builds llama.cpp and writes two models of
3.5 GB into the cache folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from support import llama_cpp
from support.child import run_child
from support.random_models import SHAPES, converted_folder, write_gguf
from support.record import CACHE, RESULTS, print_table, progress, save, warn_if_busy

PROMPT = 512
CONTEXTS = (0, 2048)
DECODE_TOKENS = 16
_GLM_RAG = "from glm_rag.cli.main import main; main()"


@dataclass(frozen=True, slots=True)
class Turn:
    """Tokens per second, bytes and seconds of one turn of one engine."""

    prefill: float
    decode: dict[int, float]
    peak_rss: int
    load_seconds: float | None = None
    backend: str = ""


def run_llama_cpp(program: Path, model: Path, threads: int) -> Turn:
    found = llama_cpp.measure(
        program,
        model,
        threads=threads,
        prompt=PROMPT,
        contexts=CONTEXTS,
        num_tokens=DECODE_TOKENS,
    )
    return Turn(found.prefill, found.decode, found.peak_rss)


def run_glm_rag(folder: Path, threads: int) -> Turn:
    sizes = ["--prompt", str(PROMPT)]
    for context in CONTEXTS:
        sizes += ["--context", str(context)]
    command = [sys.executable, "-c", _GLM_RAG, "model", "bench", str(folder), "--json"]
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = run_child([*command, "--threads", str(threads), *sizes], env)
    report = json.loads(done.stdout)
    return Turn(
        prefill=report["prefill"][0]["tokens_per_second"],
        decode={speed["tokens"]: speed["tokens_per_second"] for speed in report["decode"]},
        peak_rss=done.peak_rss,
        load_seconds=report["load_seconds"],
        backend=report["backend"],
    )


def medians(turns: Sequence[Turn]) -> dict[str, float]:
    """Columns of the table."""
    row = {f"prefill {PROMPT}": statistics.median(turn.prefill for turn in turns)}
    for context in CONTEXTS:
        row[f"decode at {context}"] = statistics.median(turn.decode[context] for turn in turns)
    row["peak RSS, GB"] = statistics.median(turn.peak_rss for turn in turns) / 1e9
    return {name: round(value, 2) for name, value in row.items()}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Both engines in turns; every turn's figures and the medians."""
    shape, cache = SHAPES[options.shape], options.cache
    program = llama_cpp.find_llama_bench(cache, options.llama_bench, jobs=options.threads)
    gguf = cache / f"{options.shape}-q4_0.gguf"
    if not gguf.is_file():
        write_gguf(gguf, shape)
    bits = options.embedding_bits
    ours = converted_folder(cache, options.shape, group=options.group, embedding_bits=bits)
    load = warn_if_busy()
    turns: dict[str, list[Turn]] = {"llama.cpp": [], "glm-rag": []}
    for number in range(options.turns):
        progress(f"turn {number + 1} of {options.turns}: llama.cpp")
        turns["llama.cpp"].append(run_llama_cpp(program, gguf, options.threads))
        progress(f"{turns['llama.cpp'][-1]}\nturn {number + 1} of {options.turns}: glm-rag")
        turns["glm-rag"].append(run_glm_rag(ours, options.threads))
        progress(str(turns["glm-rag"][-1]))
    table = {engine: medians(done) for engine, done in turns.items()}
    ratio = {
        name: round(value / table["llama.cpp"][name], 2) for name, value in table["glm-rag"].items()
    }
    return {
        "shape": asdict(shape),
        "threads": options.threads,
        "load_before": load,
        "group": options.group,
        "embedding_bits": options.embedding_bits,
        "llama.cpp": llama_cpp.build_of(program, gguf),
        "medians": table | {"ratio": ratio},
        "turns": {engine: [asdict(turn) for turn in done] for engine, done in turns.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--group", type=int, default=32, help="int4 values that share a scale")
    parser.add_argument(
        "--embedding-bits",
        type=int,
        choices=(4, 8),
        default=4,
        help="of embedding and output layer; llama.cpp's Q4_0 file has 4",
    )
    parser.add_argument("--shape", choices=SHAPES, default="6b", help="tiny: to try the script")
    parser.add_argument("--llama-bench", type=Path, help="default: from PATH, else built")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    result = compare(options)
    name = "engine_vs_llama_cpp" + ("" if options.shape == "6b" else f"_{options.shape}")
    save(options.out, name, ("glm-rag", "torch", "numpy", "gguf"), result)
    print_table([{"tokens/s": engine} | row for engine, row in result["medians"].items()])


if __name__ == "__main__":
    main()
