"""How much faster is an answer that quotes its passage when prompt lookup drafts its tokens?

    python benchmarks/prompt_lookup.py [--quantize int8] [--questions N] [--quotes N]
    python benchmarks/prompt_lookup.py --rows-of FOLDER

XQuAD, English: the question's paragraph is the only passage, in the prompt that the Assistant
builds, with the question, and asking for the sentence that holds the answer (`quotes`). Greedy
answers of the small real model, plain and speculative in turns (A B A B) over one KV cache, so
that only decoding is timed: from the first id to the last. Texts must be the same.

Rows: `all` answers of at least 8 tokens; `quoting`: those whose longest run of words that stands
in the passage is at least 60 % of the answer; `free`: the others.

`--rows-of` measures one pass of 1 to 16 tokens behind a context of 512 instead, in turns: what
drafts cost (`prompt_lookup.py` of the engine has the ratios).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch
from langchain_core.documents import Document
from support.record import RESULTS, ROOT, print_table, save, warn_if_busy

from glm_rag.engine.cache import KVCache
from glm_rag.engine.engine import Engine
from glm_rag.engine.generate import decode
from glm_rag.grounding import REFUSAL_SENTENCE
from glm_rag.models.bench import filled_cache, quantization
from glm_rag.prompting import build_turns, render_passages
from glm_rag.templates import TEMPLATES
from glm_rag.types import Passage, SamplingParams

LEAST_TOKENS = 8
QUOTING = 0.6
CONTEXT, PASSES, REPEATS = 512, (1, 2, 4, 8, 12, 16), 15
SPECULATIVE = SamplingParams(max_tokens=128, temperature=0)
PLAIN = replace(SPECULATIVE, speculate=False)
ASK_FOR_QUOTE = "Quote the sentence of the passage that answers this question: {question}"


@dataclass(frozen=True, slots=True)
class Run:
    text: str
    num_tokens: int
    seconds: float
    drafted: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Case:
    """One question: medians of seconds per id, and whether all texts were the same."""

    num_tokens: int
    quoting: bool
    plain: float
    speculative: float
    drafted: int
    accepted: int
    identical: bool


def load(data: Path, wanted: int) -> list[tuple[str, str, str]]:
    """Title, paragraph and question, spread evenly over the data set."""
    content = json.loads((data / "xquad" / "xquad.en.json").read_text("utf-8"))["data"]
    found = [
        (article["title"], paragraph["context"], qa["question"])
        for article in content
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    return found[:: max(len(found) // wanted, 1)][:wanted]


def prompt_ids(engine: Engine, title: str, paragraph: str, question: str) -> list[int]:
    document = Document(page_content=paragraph, metadata={"title": title.replace("_", " ")})
    passage = Passage(1, document, paragraph, num_tokens=0)
    template = TEMPLATES["en"]
    block = render_passages([passage], template)
    turns = build_turns(question, block, template=template, refusal=REFUSAL_SENTENCE["en"])
    return engine.tokenizer.encode_chat(turns)


def run(engine: Engine, prompt: list[int], params: SamplingParams, cache: KVCache) -> Run:
    deltas = engine.generate(prompt, params, cache=cache)
    first = next(deltas)
    started = time.perf_counter()
    rest = list(deltas)
    seconds = time.perf_counter() - started
    usage = (rest or [first])[-1].usage
    text = first.text + "".join(delta.text for delta in rest)
    return Run(text, usage.output_tokens, seconds, usage.drafted_tokens, usage.accepted_tokens)


def measure(engine: Engine, prompt: list[int], paragraph: str) -> Case | None:
    """Plain and speculative in turns; None for an answer too short to time."""
    cache = engine.new_cache()
    warm = run(engine, prompt, PLAIN, cache)
    if warm.num_tokens < LEAST_TOKENS:
        return None
    runs = [run(engine, prompt, p, cache) for p in (PLAIN, SPECULATIVE) * 2]
    plain, speculative = (
        statistics.median(r.seconds / (r.num_tokens - 1) for r in which)
        for which in (runs[::2], runs[1::2])
    )
    return Case(
        num_tokens=warm.num_tokens,
        quoting=quoted_share(warm.text, paragraph) >= QUOTING,
        plain=plain,
        speculative=speculative,
        drafted=runs[1].drafted,
        accepted=runs[1].accepted,
        identical=all(r.text == warm.text for r in runs),
    )


def quoted_share(answer: str, paragraph: str) -> float:
    """The longest run of the answer's words that stands in the paragraph, by length."""
    ours, theirs = answer.split(), paragraph.split()
    match = SequenceMatcher(a=ours, b=theirs, autojunk=False).find_longest_match()
    return match.size / max(len(ours), 1)


def row(cases: list[Case]) -> dict[str, Any]:
    if not cases:
        return {"number": 0}
    drafted = sum(case.drafted for case in cases)
    return {
        "number": len(cases),
        "tokens (median)": statistics.median(case.num_tokens for case in cases),
        "plain tok/s": round(1 / statistics.median(case.plain for case in cases), 1),
        "speculative tok/s": round(1 / statistics.median(case.speculative for case in cases), 1),
        "ratio (median)": round(
            statistics.median(case.plain / case.speculative for case in cases), 2
        ),
        "accepted of drafted %": round(100 * sum(c.accepted for c in cases) / max(drafted, 1), 1),
        "identical": f"{sum(case.identical for case in cases)}/{len(cases)}",
    }


def rows(engine: Engine, data: Path, questions: int, quotes: int) -> dict[str, dict[str, Any]]:
    result = {}
    kinds = (("question", "{question}", questions), ("quote", ASK_FOR_QUOTE, quotes))
    for kind, template, count in kinds:
        measured = [
            measure(engine, prompt_ids(engine, t, p, template.format(question=q)), p)
            for t, p, q in load(data, count)
        ]
        cases = [case for case in measured if case is not None]
        result[f"{kind}: all"] = row(cases)
        result[f"{kind}: quoting"] = row([case for case in cases if case.quoting])
        result[f"{kind}: free"] = row([case for case in cases if not case.quoting])
    return result


def row_costs(engine: Engine) -> dict[int, float]:
    """Median milliseconds of one pass over 1 to 16 tokens behind a context."""
    cache = filled_cache(engine, CONTEXT, room=max(PASSES))
    seconds: dict[int, list[float]] = {count: [] for count in PASSES}
    for _ in range(REPEATS):
        for count, found in seconds.items():
            started = time.perf_counter()
            decode(engine.model, list(range(count)), cache)
            found.append(time.perf_counter() - started)
            cache.truncate(CONTEXT)
    return {count: round(1000 * statistics.median(found), 2) for count, found in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(os.environ.get("GLM_RAG_TEST_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "models" / "smollm2-135m")
    parser.add_argument("--quantize", choices=("auto", "int8", "int4"), default="auto")
    parser.add_argument("--questions", type=int, default=30)
    parser.add_argument("--quotes", type=int, default=90, help="prompts that ask for a quotation")
    parser.add_argument("--rows-of", type=Path, nargs="+", help="measure passes of these models")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    load_before = warn_if_busy()
    if options.rows_of:
        found = [pass_row(path, kind) for path in options.rows_of for kind in kinds_of(path)]
        values = {"load_before": load_before, "threads": torch.get_num_threads(), "rows": found}
        save(options.out, "prompt_lookup_rows", ("glm-rag", "torch"), values)
        print_table(found)
        return
    started = time.perf_counter()
    engine = Engine.load(options.model, quantize=options.quantize)
    weights = quantization(engine) or str(engine.dtype).removeprefix("torch.")
    result = {
        "model": engine.name,
        "weights": weights,
        "threads": torch.get_num_threads(),
        "load_before": load_before,
        "questions": options.questions,
        "quotes": options.quotes,
        "rows": rows(engine, options.data, options.questions, options.quotes),
        "seconds": round(time.perf_counter() - started, 1),
    }
    name = "prompt_lookup" + ("" if options.quantize == "auto" else f"_{options.quantize}")
    save(options.out, name, ("glm-rag", "torch"), result)
    print_table([{"answers": kind} | values for kind, values in result["rows"].items()])


def kinds_of(folder: Path) -> tuple[str, ...]:
    """How a folder's weights can be loaded: a converted one only as it is."""
    converted = "quantization" in json.loads((folder / "config.json").read_text("utf-8"))
    return ("auto",) if converted else ("auto", "int8", "int4")


def pass_row(folder: Path, quantize: str) -> dict[str, Any]:
    engine = Engine.load(folder, quantize=quantize)
    weights = quantization(engine) or str(engine.dtype).removeprefix("torch.")
    costs = row_costs(engine)
    row = {"model": engine.name, "weights": weights, "one, ms": costs[1]}
    return row | {f"{n} rows": round(costs[n] / costs[1], 2) for n in PASSES[1:]}


if __name__ == "__main__":
    main()
