"""Does a knowledge base of one million chunks open at once, and answer and change without waiting?

    python benchmarks/knowledge_scale.py [--chunks N] [--spread S] [--folder DIR]

Builds it (minutes, 4 GB; see `support/synthetic_knowledge.py` for the vectors) unless `--folder`
holds one, then measures with the files in the page cache, a new process for each opening:

*open*: `KnowledgeBase` and the first `refresh`, the snapshot's checksum included, without Python's
imports. *search*: the 20 nearest of one language, exact scores included, one by one. *recall*:
of the 10 nearest, against all vectors. *add*: one document of 1,000 chunks with vectors, to where
a search sees it; *delete*: one of 100 chunks. *question*: `candidates`, that is dense and sparse
candidates with their texts, for 8 words drawn like those of the chunks (all have common ones), and
for the most common word alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.child import run_child
from support.record import RESULTS, print_table, progress, save, warn_if_busy
from support.synthetic_knowledge import (
    BLOCK,
    DIMENSION,
    NUM_CENTRES,
    Vectors,
    document,
    fill,
    open_kb,
    texts,
)

from glm_rag.knowledge.base import KnowledgeBase

OPENINGS, SEARCHES, QUESTIONS, CHANGES, JUDGED = 5, 1000, 100, 5, 200
LIMIT, RECALLED = 20, 10
PROBED = (16, 64, 128, 256, 512, 1024)
_BUILT = "built.json"


def build(folder: Path, num_chunks: int, spread: float) -> None:
    """Fill the folder, or go on with it, and note how long the snapshot took."""
    with open_kb(folder, create=True) as kb:
        for done in fill(kb, Vectors(spread), num_chunks):
            if done % (10 * BLOCK) == 0:
                progress(f"{done} chunks")
        started = time.perf_counter()
        kb._index.save()
        seconds = round(time.perf_counter() - started, 1)
    progress(f"snapshot: {seconds} s")
    built = {"num_chunks": num_chunks, "spread": spread, "train_and_write_snapshot_s": seconds}
    (folder / _BUILT).write_text(json.dumps(built), encoding="utf-8")


def open_once(folder: Path) -> dict[str, float]:
    """Seconds to open, in this process."""
    import faiss  # noqa: F401 - its import is not ours

    started = time.perf_counter()
    kb = open_kb(folder)
    opened = time.perf_counter()
    refresh(kb)
    ended = time.perf_counter()
    return {"open_s": ended - started, "database_s": opened - started}


def refresh(kb: KnowledgeBase) -> None:
    with kb._database.read() as connection:
        kb._index.refresh(connection)


def measure_openings(folder: Path) -> list[dict[str, float]]:
    command = [sys.executable, __file__, "--folder", str(folder), "--open-once"]
    return [json.loads(run_child(command).stdout) for _ in range(OPENINGS)]


def milliseconds(call: Callable[[Any], Any], arguments: Sequence[Any]) -> dict[str, float]:
    """Median, 95th percentile and maximum of a call for each argument."""
    taken = []
    for argument in arguments:
        started = time.perf_counter()
        call(argument)
        taken.append(1000 * (time.perf_counter() - started))
    shares = (("p50_ms", 50), ("p95_ms", 95), ("max_ms", 100))
    return {name: round(float(np.percentile(taken, share)), 2) for name, share in shares}


def exact_nearest(kb: KnowledgeBase, vectors: Vectors, questions: np.ndarray) -> np.ndarray:
    """Row ids of the nearest chunks, `[len(questions), RECALLED]`; those of the first block begin
    at 1, and an earlier measurement may have deleted some."""
    stored = {row[0] for row in kb._database.rows("SELECT id FROM chunks")}
    best_scores = np.full((len(questions), RECALLED), -2.0, dtype=np.float32)
    best_ids = np.zeros((len(questions), RECALLED), dtype=np.int64)
    for first in range(1, max(stored) + 1, BLOCK):
        kept = np.array([i for i in range(first, first + BLOCK) if i in stored], dtype=np.int64)
        block = vectors.block(first // BLOCK)[kept - first]
        scores = np.hstack([best_scores, questions @ block.T])
        ids = np.hstack([best_ids, np.broadcast_to(kept, (len(questions), len(kept)))])
        order = np.argpartition(-scores, RECALLED, axis=1)[:, :RECALLED]
        best_scores = np.take_along_axis(scores, order, axis=1)
        best_ids = np.take_along_axis(ids, order, axis=1)
    return best_ids


def recall(found: Sequence[Sequence[int]], nearest: np.ndarray) -> float:
    hits = [len(set(ids) & set(best.tolist())) for ids, best in zip(found, nearest, strict=True)]
    return round(sum(hits) / nearest.size, 4)


def recall_by_lists(
    kb: KnowledgeBase, questions: np.ndarray, nearest: np.ndarray
) -> list[dict[str, Any]]:
    """What reading more lists brings, with the 8-bit scores alone and scored exactly."""
    import faiss

    index = kb._index._state.parts["en"].index
    if not isinstance(index, faiss.IndexIVF):
        return []
    table = []
    for probed in PROBED:
        parameters = faiss.SearchParametersIVF(nprobe=probed)
        raw, exact, taken = [], [], []
        for question in questions:
            started = time.perf_counter()
            ids = index.search(question[None], 2 * LIMIT, params=parameters)[1][0]
            taken.append(1000 * (time.perf_counter() - started))
            ids, vectors = kb._index._fetch(DIMENSION, ids[ids >= 0])
            exact.append(ids[np.argsort(-(vectors @ question))][:RECALLED].tolist())
            raw.append(index.search(question[None], RECALLED, params=parameters)[1][0].tolist())
        table.append(
            {
                "lists read": f"{probed} of {index.nlist}",
                "recall@10, 8 bits": recall(raw, nearest),
                "recall@10, scored exactly": recall(exact, nearest),
                "FAISS, median ms": round(statistics.median(taken), 2),
            }
        )
    return table


def measure_changes(kb: KnowledgeBase, vectors: Vectors) -> dict[str, Any]:
    """Adding and deleting, each to where a search sees it."""
    adding, deleting = [], []
    question = vectors.block(-1, 1)[0]
    victims = kb._database.rows("SELECT source FROM documents ORDER BY id LIMIT ?", (CHANGES,))
    for number, (victim,) in enumerate(victims):
        extracted, chunks = document(f"new:{number}", texts(10**6 + number, 1000))
        new = vectors.block(-10 - number, 1000)
        started = time.perf_counter()
        kb.put_document(extracted, chunks, new)
        refresh(kb)
        kb._index.search(question, LIMIT)
        adding.append(time.perf_counter() - started)
        started = time.perf_counter()
        kb.remove(victim)
        refresh(kb)
        kb._index.search(question, LIMIT)
        deleting.append(time.perf_counter() - started)
    for number in range(CHANGES):
        kb.remove(f"new:{number}")
    started = time.perf_counter()
    kb.close()
    return {
        "add_1000_s": [round(s, 3) for s in adding],
        "delete_100_s": [round(s, 3) for s in deleting],
        "close_s": round(time.perf_counter() - started, 3),
    }


def measure_questions(kb: KnowledgeBase, vectors: Vectors) -> dict[str, Any]:
    """Candidates of whole questions."""
    questions = vectors.block(-2, QUESTIONS)
    words = [text.split()[:8] for text in texts(2 * 10**6, QUESTIONS)]
    mixed = milliseconds(
        lambda item: kb.candidates(item[0], item[1], limit=LIMIT),
        list(zip(questions, words, strict=True)),
    )
    common = milliseconds(lambda q: kb.candidates(q, ["w0"], limit=LIMIT), questions[:5])
    return {"eight_words": mixed, "most_common_word_alone": common}


def measure(folder: Path) -> dict[str, Any]:
    """All figures of a knowledge base that is built."""
    built = json.loads((folder / _BUILT).read_text(encoding="utf-8"))
    load, num_chunks = warn_if_busy(), built["num_chunks"]
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    openings = measure_openings(folder)
    vectors = Vectors(built["spread"])
    kb = open_kb(folder)
    refresh(kb)
    questions = vectors.block(-1, SEARCHES)
    for question in questions[:50]:
        kb._index.search(question, LIMIT, language="en")
    search = milliseconds(lambda q: kb._index.search(q, LIMIT, language="en"), questions)
    asked = measure_questions(kb, vectors)
    progress("exact neighbours")
    judged = questions[:JUDGED]
    nearest = exact_nearest(kb, vectors, judged)
    found = [[i for i, _ in kb._index.search(q, RECALLED, language="en")] for q in judged]
    one, other = vectors.block(-3, 1000), vectors.block(-4, 1000)
    database, snapshot = (
        sizes["library.sqlite"],
        sum(size for name, size in sizes.items() if name.endswith(".faiss")),
    )
    return {
        "load_average": load,
        "vectors": {
            "kind": f"synthetic: {NUM_CENTRES} centres and noise, {DIMENSION} dimensions",
            "spread": built["spread"],
            "cosine_of_two_p1_p50_p99": _percentiles((one * other).sum(axis=1)),
            "cosine_to_nearest_p1_p50_p99": _percentiles(
                [kb._index.search(q, 1)[0][1] for q in judged]
            ),
        },
        "build": built,
        "open_s": sorted(round(opening["open_s"], 3) for opening in openings),
        "search": search,
        "recall_at_10": recall(found, nearest),
        "recall_by_lists": recall_by_lists(kb, judged, nearest),
        "question": asked,
        "bytes_per_chunk": {
            "database": round(database / num_chunks),
            "of_these_vector": 4 * DIMENSION,
            "of_these_text": round(sum(map(len, texts(0))) / BLOCK),
            "snapshot": round(snapshot / num_chunks),
        },
        **measure_changes(kb, vectors),
    }


def _percentiles(values: Any) -> list[float]:
    return [round(float(v), 3) for v in np.percentile(values, [1, 50, 99])]


def report(figures: dict[str, Any]) -> None:
    print_table(
        [
            {
                "chunks": figures["build"]["num_chunks"],
                "open, s": statistics.median(figures["open_s"]),
                "search p50 / p95, ms": "{p50_ms} / {p95_ms}".format(**figures["search"]),
                "recall@10": figures["recall_at_10"],
                "add 1,000, s": statistics.median(figures["add_1000_s"]),
                "delete a document, s": statistics.median(figures["delete_100_s"]),
                "question p50 / p95, ms": "{p50_ms} / {p95_ms}".format(
                    **figures["question"]["eight_words"]
                ),
                "bytes per chunk": "{database} + {snapshot}".format(**figures["bytes_per_chunk"]),
            }
        ]
    )
    if figures["recall_by_lists"]:
        print_table(figures["recall_by_lists"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--spread", type=float, default=1.5)
    parser.add_argument("--folder", type=Path, help="kept, and not built again")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--open-once", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.open_once:
        print(json.dumps(open_once(arguments.folder)))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="glm-rag-scale-"))
    try:
        if not (folder / _BUILT).exists():
            build(folder, arguments.chunks, arguments.spread)
        if not arguments.build_only:
            figures = measure(folder)
            save(arguments.output, "knowledge_scale", ["faiss-cpu", "numpy"], figures)
            report(figures)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
