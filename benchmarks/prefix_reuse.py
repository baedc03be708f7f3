"""How much sooner does an answer start when its passage, or the conversation, was read before?

    python benchmarks/prefix_reuse.py [--threads N] [--turns N] [--cache DIR]

ChatGLM2-6B's shape with random 4-bit weights (embedding and output layer in 8 bits, the default).

*Passage*: another process has read 40 ids of fixed text and a passage of 500, and its KV cache is a
file. A new process then answers a question of 20 ids behind them, with and without that file, in
turns (A B A B): seconds from its start, and from when Python's imports are done, to the first
token. *Conversation*: behind 2,000 ids and an answer, a question of 30 ids more; the first token of
the engine that kept the sequence and of one that keeps nothing, in turns. Ten such turns show what
the kept sequences take. Figures are medians. The first run writes a model of 3.6 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.child import run_child
from support.random_models import SHAPES, converted_folder
from support.record import CACHE, RESULTS, print_table, progress, save, warn_if_busy

SYSTEM, PASSAGE, QUESTION = 40, 500, 20
CONVERSATION, NEXT_QUESTION, ANSWER = 2000, 30, 16
CONVERSATION_TURNS = 10
BUDGET = 96 << 20  # of kept sequences in memory, and again on the disk
KV_TYPES = ("bfloat16", "int8")
_VOCABULARY = 256


def ids(count: int, seed: object) -> list[int]:
    """Random token ids, the same for the same seed."""
    return random.Random(str(seed)).choices(range(_VOCABULARY), k=count)


def open_engine(folder: Path, kv_type: str, threads: int, store: Path | None) -> Any:
    from glm_rag.engine.engine import Engine
    from glm_rag.types import CacheLimits

    engine = Engine.load(folder, kv_cache=kv_type, threads=threads)
    if store is not None:
        engine.keep_sequences(CacheLimits(BUDGET, BUDGET, store))
    return engine


def first_token(engine: Any, prompt: Sequence[int]) -> tuple[float, int]:
    """The clock when the first token was there, and how many ids were not read again."""
    from glm_rag.types import SamplingParams

    once = SamplingParams(temperature=0, max_tokens=1, speculate=False)
    deltas = list(engine.generate(prompt, once))
    return time.monotonic(), deltas[-1].usage.cached_tokens


# ---------------------------------------------------------------- what the processes do


def read_passage(folder: Path, kv_type: str, threads: int, store: Path) -> dict[str, Any]:
    """Read fixed text and passage and keep them as a file."""
    engine = open_engine(folder, kv_type, threads, store)
    cache = engine.read(ids(SYSTEM + PASSAGE, "passage"))
    return {"file, MB": round(engine.store.files.save(cache, pinned=True) / 1e6, 1)}


def ask(
    folder: Path, kv_type: str, threads: int, store: Path | None, turn: int, started: float
) -> dict[str, Any]:
    """Answer a question about the passage; `started` is the system's monotonic clock."""
    import safetensors.torch  # noqa: F401
    import tokenizers  # noqa: F401

    import glm_rag.engine.engine  # noqa: F401

    imported = time.monotonic()
    engine = open_engine(folder, kv_type, threads, store)
    loaded = time.monotonic()
    prompt = ids(SYSTEM + PASSAGE, "passage") + ids(QUESTION, turn)
    answered, cached = first_token(engine, prompt)
    return {
        "whole": answered - started,
        "without imports": answered - imported,
        "loading": loaded - imported,
        "cached": cached,
    }


def converse(
    folder: Path, kv_type: str, threads: int, store: Path, cold_turns: int
) -> dict[str, Any]:
    """A conversation of several turns; the first ones are also answered by a forgetful engine."""
    from glm_rag.types import SamplingParams

    engine = open_engine(folder, kv_type, threads, store)
    params = SamplingParams(temperature=0, max_tokens=ANSWER, loop_guard=False)
    history = ids(CONVERSATION, "conversation")
    cold, warm, turns = [], [], []
    history += [i for delta in engine.generate(history, params) for i in delta.token_ids]
    for turn in range(CONVERSATION_TURNS):
        prompt = history + ids(NEXT_QUESTION, turn)
        if turn < cold_turns:
            store_kept, engine.store = engine.store, None
            begun = time.monotonic()
            cold.append(first_token(engine, prompt)[0] - begun)
            engine.store = store_kept
        begun = time.monotonic()
        deltas = engine.generate(prompt, params)
        first = next(deltas)
        warm.append(time.monotonic() - begun)
        answer = [first, *deltas]
        history = prompt + [i for delta in answer for i in delta.token_ids]
        cached = answer[-1].usage.cached_tokens
        turns.append(
            {
                "prompt": len(prompt),
                "cached": cached,
                "read": len(prompt) - cached,
                "in memory": engine.store.num_bytes,
                "on disk": engine.store.files.num_bytes(),
                "resident": resident(),
            }
        )
    return {"cold": cold, "warm": warm, "turns": turns}


def resident() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


# ---------------------------------------------------------------- what this process does


def child(options: argparse.Namespace, job: str, **arguments: Any) -> dict[str, Any]:
    """One job in a process of its own."""
    command = [sys.executable, __file__, "--job", job, json.dumps(arguments, default=str)]
    env = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done: dict[str, Any] = json.loads(run_child(command, env).stdout)
    progress(
        f"{job} {arguments.get('kv_type')}: {done if job != 'converse' else done['turns'][-1]}"
    )
    return done


def run_job(job: str, text: str) -> dict[str, Any]:
    arguments = json.loads(text)
    for name in ("folder", "store"):
        arguments[name] = Path(arguments[name]) if arguments[name] else None
    found: dict[str, Any] = JOBS[job](**arguments)
    return found


JOBS: dict[str, Any] = {"read": read_passage, "ask": ask, "converse": converse}


def passage_row(options: argparse.Namespace, folder: Path, kv_type: str) -> dict[str, Any]:
    """First token from a passage on the disk and without it."""
    same: dict[str, Any] = {"folder": folder, "kv_type": kv_type, "threads": options.threads}
    with tempfile.TemporaryDirectory() as store:
        made = child(options, "read", **same, store=store)
        cold, warm = [], []
        for turn in range(options.turns):
            for found, place in ((cold, None), (warm, store)):
                asked = {"turn": turn, "started": time.monotonic()}
                found.append(child(options, "ask", **same, store=place, **asked))
    row = {"KV": kv_type, "prompt": SYSTEM + PASSAGE + QUESTION, "cached": warm[-1]["cached"]}
    for name in ("whole", "without imports"):
        before, after = (statistics.median(t[name] for t in turns) for turns in (cold, warm))
        row |= {f"cold, s ({name})": round(before, 2), f"warm, s ({name})": round(after, 2)}
        row |= {f"ratio ({name})": round(before / after, 1)}
    return row | made | {"runs": {"cold": cold, "warm": warm}}


def conversation_row(options: argparse.Namespace, folder: Path, kv_type: str) -> dict[str, Any]:
    """First token of the next turn, and what ten turns keep."""
    same: dict[str, Any] = {"folder": folder, "kv_type": kv_type, "threads": options.threads}
    with tempfile.TemporaryDirectory() as store:
        found = child(options, "converse", **same, store=store, cold_turns=options.turns)
    turns = found["turns"]
    cold, warm = (statistics.median(found[name][: options.turns]) for name in ("cold", "warm"))
    most = {place: max(turn[place] for turn in turns) for place in ("in memory", "on disk")}
    return {
        "KV": kv_type,
        "prompt": turns[0]["prompt"],
        "cached": turns[0]["cached"],
        "read": turns[0]["read"],
        "cold, s": round(cold, 2),
        "warm, s": round(warm, 2),
        "ratio": round(cold / warm, 1),
        "kept in memory, MiB": round(most["in memory"] / 2**20, 1),
        "kept on disk, MiB": round(most["on disk"] / 2**20, 1),
        "budget, MiB": BUDGET >> 20,
        "growth over ten turns, MB": round((turns[-1]["resident"] - turns[0]["resident"]) / 1e6),
        "runs": found,
    }


def main() -> None:
    if sys.argv[1:2] == ["--job"]:
        print(json.dumps(run_job(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--embedding-bits", type=int, choices=(4, 8), default=8)
    parser.add_argument("--shape", choices=SHAPES, default="6b", help="tiny: to try the script")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    folder = converted_folder(options.cache, options.shape, embedding_bits=options.embedding_bits)
    load = warn_if_busy()
    passages = [passage_row(options, folder, kv_type) for kv_type in KV_TYPES]
    conversations = [conversation_row(options, folder, kv_type) for kv_type in KV_TYPES]
    values = {"threads": options.threads, "load_before": load}
    values |= {"embedding_bits": options.embedding_bits}
    values |= {"passage": passages, "conversation": conversations}
    name = "prefix_reuse" + ("" if options.shape == "6b" else f"_{options.shape}")
    save(options.out, name, ("glm-rag", "torch"), values)
    for rows in (passages, conversations):
        print_table([{key: row[key] for key in row if key != "runs"} for row in rows])


if __name__ == "__main__":
    main()
