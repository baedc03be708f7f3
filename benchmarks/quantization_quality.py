"""What do fewer bits per weight cost in quality?

    python benchmarks/quantization_quality.py [--model NAME_OR_PATH] [--windows N] [--prompts N]

Perplexity: windows of 512 tokens, evenly spread over War and Peace (public domain), each read
alone. *Same next token*: positions of these windows where the likeliest next token is float32's.
Answers: greedy ones to XQuAD questions with their paragraph; *first difference* is the median
position of the first token that float32 answers differently (64 where there is none), *same
tokens* the share of the positions with equal tokens.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import torch
from support.record import RESULTS, ROOT, print_table, save

from glm_rag.config import load_config
from glm_rag.engine.engine import Engine
from glm_rag.models.loading import resolve
from glm_rag.types import ChatTurn, SamplingParams

WINDOW = 512
ANSWER = 64
BOOK = Path("documents") / "war-and-peace.txt"
_CHARACTERS = 10 * WINDOW  # certainly enough for a window's tokens
# The first one is what the others are compared with. Quantized ones run as a user gets them: on a
# CPU float32 between the products, 8-bit activations in them, bfloat16 keys and values.
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"quantize": "int8"},
    "int4, group 32": {"quantize": "int4", "group": 32},
    "int4, group 128": {"quantize": "int4", "group": 128},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one variant computed.

    Attributes:
        perplexity: over all windows.
        predicted: the likeliest next token at every position of the windows.
        answers: ids of each greedy answer.
    """

    perplexity: float
    predicted: list[int]
    answers: list[list[int]]


def windows(engine: Engine, text: str, count: int) -> Iterator[list[int]]:
    """Ids of `count` pieces from all over the text, each beginning at a word."""
    for number in range(count):
        start = text.index(" ", len(text) * number // count) + 1
        yield engine.tokenizer.encode(text[start : start + _CHARACTERS])[:WINDOW]


def prompts(engine: Engine, data: Path, count: int) -> Iterator[list[int]]:
    """Ids of questions with their paragraph, evenly spread over XQuAD."""
    content = json.loads((data / "xquad" / "xquad.en.json").read_text("utf-8"))["data"]
    pairs = [
        (paragraph["context"], qa["question"])
        for article in content
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    for context, question in islice(pairs, 0, None, max(len(pairs) // count, 1)):
        text = f"{context}\n\nAnswer from the text above: {question}"
        yield engine.tokenizer.encode_chat([ChatTurn("user", text)])


def read(engine: Engine, pieces: Iterator[list[int]]) -> tuple[float, list[int]]:
    """Perplexity and likeliest next tokens."""
    losses, predicted = [], []
    for ids in pieces:
        logits = engine.logits(ids)[:-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        losses += loss.tolist()
        predicted += logits.argmax(-1).tolist()
    return math.exp(statistics.fmean(losses)), predicted


def answer(engine: Engine, ids: Sequence[int]) -> list[int]:
    greedy = SamplingParams(temperature=0, max_tokens=ANSWER)
    return [i for delta in engine.generate(ids, greedy) for i in delta.token_ids]


def measure(engine: Engine, options: argparse.Namespace) -> Outcome:
    text = (options.data / BOOK).read_text("utf-8")
    perplexity, predicted = read(engine, windows(engine, text, options.windows))
    questions = islice(prompts(engine, options.data, options.prompts), options.prompts)
    return Outcome(perplexity, predicted, [answer(engine, ids) for ids in questions])


def compare(found: Outcome, reference: Outcome) -> dict[str, float]:
    """A row of the table."""
    pairs = list(zip(found.answers, reference.answers, strict=True))
    same = zip(found.predicted, reference.predicted, strict=True)
    return {
        "perplexity": round(found.perplexity, 3),
        "change, %": round(100 * (found.perplexity / reference.perplexity - 1), 2),
        "same next token, %": percent([a == b for a, b in same]),
        "first difference": statistics.median(first_difference(a, b) for a, b in pairs),
        "same tokens, %": percent([a == b for x, y in pairs for a, b in zip_longest(x, y)]),
        "equal answers, %": percent([a == b for a, b in pairs]),
    }


def first_difference(answer: Sequence[int], reference: Sequence[int]) -> int:
    """Tokens before the two differ; `ANSWER` where they are equal."""
    if answer == reference:
        return ANSWER
    pairs = enumerate(zip_longest(answer, reference))
    return next(position for position, (a, b) in pairs if a != b)


def percent(values: Sequence[bool]) -> float:
    return round(100 * sum(values) / len(values), 1)


def run(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Rows of all variants."""
    folder = resolve(options.model, load_config().models_dir)
    rows: dict[str, dict[str, float]] = {}
    reference = None
    for name in options.variants:
        started = time.perf_counter()
        engine = Engine.load(folder, threads=options.threads, **VARIANTS[name])
        found = measure(engine, options)
        reference = reference or found
        rows[name] = compare(found, reference)
        print(f"{name}: {time.perf_counter() - started:.0f} s {rows[name]}", file=sys.stderr)
        del engine
        gc.collect()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("GLM_RAG_TEST_DATA") or ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--model", default=str(ROOT / ".cache" / "models" / "smollm2-135m"))
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = run(options)
    values = {"windows": options.windows, "prompts": options.prompts, "rows": rows}
    save(options.out, "quantization_quality", ("glm-rag", "torch"), values)
    print_table([{"weights": name} | row for name, row in rows.items()])


if __name__ == "__main__":
    main()
