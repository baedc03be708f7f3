"""How much sooner are questions answered that come together and begin alike?

    python benchmarks/shared_beginnings.py [--threads N] [--turns N] [--tokens N]

Eight questions at the same moment to the small real model, each behind a text of some 800 tokens:
the *same* text for all, or for each *another* of that length (its words in another order). The
engine decodes them together (`Engine.serve`) and has kept nothing before. Both ways take their
turns (A B A B); figures are medians of turns: seconds until all first tokens were there, until all
answers were done, and prompt tokens that were computed.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from support.record import RESULTS, ROOT, print_table, progress, save, warn_if_busy

from glm_rag.engine.engine import Engine
from glm_rag.types import CacheLimits, SamplingParams

QUESTIONS = 8
TEXT_TOKENS = 800
SENTENCE = "The handbook says what everybody may expect of leave, travel, pay and equipment. "
BUDGET = 1 << 30  # of kept sequences, in bytes


def prompts_of(engine: Engine, *, alike: bool) -> list[list[int]]:
    """Token ids of the questions, each behind its text."""
    words = engine.tokenizer.encode(SENTENCE * TEXT_TOKENS)[:TEXT_TOKENS]
    found = []
    for number in range(QUESTIONS):
        order = random.Random(0 if alike else number)
        text = order.sample(words, len(words))
        found.append(text + engine.tokenizer.encode(f" What is said of topic {number}?"))
    return found


def run(engine: Engine, *, alike: bool, num_tokens: int) -> dict[str, float]:
    """Ask all at once; seconds to the last first token and to the end, tokens computed."""
    engine.keep_sequences(None)
    engine.keep_sequences(CacheLimits(memory_bytes=BUDGET))
    engine.serve(None)
    engine.serve(QUESTIONS)
    params = SamplingParams(max_tokens=num_tokens, temperature=0, loop_guard=False)
    firsts: list[float] = []
    gate = threading.Barrier(QUESTIONS + 1)

    def ask(prompt: list[int]) -> None:
        gate.wait()
        deltas = engine.generate(prompt, params)
        next(deltas)
        firsts.append(time.perf_counter() - started)
        for _ in deltas:
            pass

    prompts = prompts_of(engine, alike=alike)
    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    gate.wait()
    for thread in threads:
        thread.join()
    if len(firsts) != QUESTIONS or engine.scheduler is None:
        raise RuntimeError("a question was not answered")
    computed = engine.scheduler.stats().prompt_tokens
    return {"first": max(firsts), "all": time.perf_counter() - started, "computed": computed}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "models" / "smollm2-135m")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    values: dict[str, Any] = {"load_before": warn_if_busy(), "turns": options.turns}
    engine = Engine.load(options.model, threads=options.threads)
    runs: dict[str, list[dict[str, float]]] = {"another": [], "same": []}
    for turn in range(options.turns + 1):
        for text, found in runs.items():
            done = run(engine, alike=text == "same", num_tokens=options.tokens)
            if turn:  # the first one warms up
                found.append(done)
        progress(f"turn {turn} of {options.turns}")
    rows = []
    for text, found in runs.items():
        median = {name: statistics.median(each[name] for each in found) for name in found[0]}
        rows.append(
            {
                "text": text,
                "all first tokens, s": round(median["first"], 2),
                "all answers, s": round(median["all"], 2),
                "prompt tokens computed": int(median["computed"]),
            }
        )
    for row in rows:
        row["first tokens, times sooner"] = round(
            rows[0]["all first tokens, s"] / row["all first tokens, s"], 1
        )
    print_table(rows)
    values |= {"threads": options.threads, "tokens": options.tokens, "rows": rows}
    print(save(options.out, "shared_beginnings", ("glm-rag", "torch"), values), file=sys.stderr)


if __name__ == "__main__":
    main()
