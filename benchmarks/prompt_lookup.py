"""How much faster is an answer that quotes its passage when prompt lookup drafts its tokens?

    python benchmarks/prompt_lookup.py [--data FOLDER] [--model FOLDER] [--questions N]

XQuAD, English: the question's paragraph is the only passage, in the prompt that the Assistant
builds, once with the question and once asking for the sentence that holds the answer. Greedy
answers of the small real model in float32, plain and speculative in turns (A B A B) over one KV
cache, so that only decoding is timed: from the first id to the last. Texts must be the same.

Rows: `all` answers of at least 8 tokens; `quoting`: those whose longest run of words that stands
in the passage is at least 60 % of the answer; `free`: the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch
from langchain_core.documents import Document

from glm_rag.engine.cache import KVCache
from glm_rag.engine.engine import Engine
from glm_rag.grounding import REFUSAL_SENTENCE
from glm_rag.prompting import build_turns, render_passages
from glm_rag.types import Passage, SamplingParams

ROOT = Path(__file__).resolve().parents[1]
LEAST_TOKENS = 8
QUOTING = 0.6
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
    turns = build_turns(
        question, render_passages([passage], "en"), language="en", refusal=REFUSAL_SENTENCE["en"]
    )
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
        return {"answers": 0}
    drafted = sum(case.drafted for case in cases)
    return {
        "answers": len(cases),
        "tokens (median)": statistics.median(case.num_tokens for case in cases),
        "plain tok/s": round(1 / statistics.median(case.plain for case in cases), 1),
        "speculative tok/s": round(1 / statistics.median(case.speculative for case in cases), 1),
        "ratio (median)": round(
            statistics.median(case.plain / case.speculative for case in cases), 2
        ),
        "accepted of drafted %": round(100 * sum(c.accepted for c in cases) / max(drafted, 1), 1),
        "identical": f"{sum(case.identical for case in cases)}/{len(cases)}",
    }


def rows(engine: Engine, questions: list[tuple[str, str, str]]) -> dict[str, dict[str, Any]]:
    result = {}
    for kind, template in (("question", "{question}"), ("quote", ASK_FOR_QUOTE)):
        measured = [
            measure(engine, prompt_ids(engine, t, p, template.format(question=q)), p)
            for t, p, q in questions
        ]
        cases = [case for case in measured if case is not None]
        result[f"{kind}: all"] = row(cases)
        result[f"{kind}: quoting"] = row([case for case in cases if case.quoting])
        result[f"{kind}: free"] = row([case for case in cases if not case.quoting])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    named = os.environ.get("GLM_RAG_TEST_DATA")
    data = Path(named) if named else ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "models" / "smollm2-135m")
    parser.add_argument("--questions", type=int, default=30)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    started = time.perf_counter()
    engine = Engine.load(options.model)
    result = {
        "benchmark": "prompt_lookup",
        "model": engine.name,
        "dtype": str(engine.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "questions": options.questions,
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.platform()}",
        "versions": {"torch": torch.__version__},
        "rows": rows(engine, load(options.data, options.questions)),
        "seconds": round(time.perf_counter() - started, 1),
    }
    out = options.out / "prompt_lookup.json"
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    columns = list(result["rows"]["question: all"])
    print("| answers | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, values in result["rows"].items():
        print(f"| {name} | " + " | ".join(str(values.get(c, "-")) for c in columns) + " |")


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"


if __name__ == "__main__":
    main()
