"""What does a context of 32,768 tokens cost, in time and in memory?

    python benchmarks/long_context.py [--threads N] [--cache DIR]

ChatGLM2-6B's shape with random 4-bit weights; embedding and output layer in 8 bits, which is the
default. Each row is a new process: the KV cache is filled with random values up to the last chunk
of 512 tokens, that chunk is read, then 16 tokens are written. *Growth* is how far the peak of
resident memory rises while the chunk is read, above what weights and cache held before: it must not
depend on the context. The first row of each KV type reads all of its 2,048 tokens. The first run
writes a model of 3.6 GB into the cache folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.child import run_child
from support.random_models import SHAPES, converted_folder
from support.record import CACHE, RESULTS, print_table, progress, save, warn_if_busy

CHUNK = 512
DECODE_TOKENS = 16
ROOM = 64  # left of the window for the answer
SMALL_CONTEXT = 2048  # read whole
CONTEXTS = (4096, 16384, 32768)
KV_TYPES = ("bfloat16", "int8")
_STATUS = Path("/proc/self/status")


def memory(field: str) -> int:
    """Bytes of VmRSS or VmHWM (the peak) of this process."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def forget_peak() -> None:
    """Let the peak begin anew at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def probe(folder: Path, kv_type: str, window: int, read: int, threads: int) -> dict[str, Any]:
    """One row, in this process: all but `read` tokens are in the cache from the start."""
    from glm_rag.engine.engine import Engine
    from glm_rag.engine.generate import prefill
    from glm_rag.models.bench import filled_cache

    engine = Engine.load(folder, kv_cache=kv_type, threads=threads)
    prefill(engine.model, range(16), engine.new_cache())  # maps the weights
    context = window - ROOM
    cache = filled_cache(engine, context - read, room=read + ROOM)
    peak, before = memory("VmHWM"), memory("VmRSS")
    forget_peak()
    started = time.perf_counter()
    prefill(engine.model, range(read), cache, CHUNK)
    seconds = time.perf_counter() - started
    growth = memory("VmHWM") - before
    ticks, token_id = [time.perf_counter()], 0
    for _ in range(DECODE_TOKENS):
        token_id = int(prefill(engine.model, [token_id], cache).argmax())
        ticks.append(time.perf_counter())
    per_token = statistics.median(b - a for a, b in pairwise(ticks))
    return {
        "KV": kv_type,
        "context": window,
        "decode, tok/s": round(1 / per_token, 2),
        "read": read,
        "read, tok/s": round(read / seconds, 1),
        "growth, MB": round(growth / 1e6),
        "KV cache, GiB": round(cache.num_bytes / 2**30, 3),
        "peak RSS, GB": round(max(peak, memory("VmHWM")) / 1e9, 2),
    }


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows, each from a process of its own."""
    folder = converted_folder(options.cache, options.shape, embedding_bits=options.embedding_bits)
    sizes = [(SMALL_CONTEXT, SMALL_CONTEXT - ROOM), *((context, CHUNK) for context in CONTEXTS)]
    rows = []
    env = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    for kv_type in KV_TYPES:
        for window, read in sizes:
            arguments = [kv_type, str(window), str(read), str(options.threads)]
            command = [sys.executable, __file__, "--probe", str(folder), *arguments]
            rows.append(json.loads(run_child(command, env).stdout))
            progress(str(rows[-1]))
    return rows


def main() -> None:
    if sys.argv[1:2] == ["--probe"]:
        folder, kv_type, *numbers = sys.argv[2:]
        print(json.dumps(probe(Path(folder), kv_type, *map(int, numbers))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--embedding-bits", type=int, choices=(4, 8), default=8)
    parser.add_argument("--shape", choices=SHAPES, default="6b", help="tiny: to try the script")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = warn_if_busy()
    rows = run(options)
    values = {"threads": options.threads, "load_before": load}
    values |= {"embedding_bits": options.embedding_bits, "rows": rows}
    name = "long_context" + ("" if options.shape == "6b" else f"_{options.shape}")
    save(options.out, name, ("glm-rag", "torch"), values)
    print_table(rows)


if __name__ == "__main__":
    main()
