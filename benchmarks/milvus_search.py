"""What does a question cost in milvus-lite beside FAISS, and how fast does a knowledge base move?

    python benchmarks/milvus_search.py [--chunks 5000]

One synthetic knowledge base (English words by Zipf's law, 384 numbers), made with FAISS and moved
as `glm-rag kb copy` does into a `milvus-lite server` of its own. Questions of eight words go to
both in turns. milvus-lite is Milvus' server for development, in Python: a cluster is another thing.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.record import RESULTS, print_table, save
from support.synthetic_knowledge import NoEmbeddings, Vectors, document, open_kb, texts

from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.knowledge.copying import copy
from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase
from glm_rag.knowledge.milvus.naming import Location

if TYPE_CHECKING:
    import numpy as np

PER_DOCUMENT = 50
QUESTIONS = 40
PORT = 19791


def fill(kb: KnowledgeBase, vectors: Vectors, num_chunks: int) -> float:
    """Documents a second, each in a transaction of its own."""
    block, pieces = vectors.block(0, num_chunks), texts(0, num_chunks)
    started = time.perf_counter()
    for start in range(0, num_chunks, PER_DOCUMENT):
        end = start + PER_DOCUMENT
        kb.put_documents([(*document(f"doc:{start}", pieces[start:end]), block[start:end])])
    return num_chunks / PER_DOCUMENT / (time.perf_counter() - started)


def ask(kb: Any, vector: np.ndarray, terms: list[str]) -> tuple[float, list[str]]:
    """Milliseconds, and ids of the candidates."""
    started = time.perf_counter()
    found = kb.candidates(vector, terms, limit=20)
    seconds = time.perf_counter() - started
    return 1000 * seconds, sorted(str(c.document.id) for c in found.candidates)


def serve(folder: Path) -> subprocess.Popen[bytes]:
    """A server of its own, once it answers."""
    program = "from milvus_lite.cmdline import main; main()"
    command = [sys.executable, "-c", program, "server", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(PORT), "--data-dir", str(folder / "milvus")],
        stdout=subprocess.DEVNULL,
    )
    time.sleep(5)
    return process


def measure(folder: Path, num_chunks: int) -> list[dict[str, Any]]:
    """A row for each backend."""
    vectors = Vectors(0)
    location = Location(f"http://127.0.0.1:{PORT}")
    options: dict[str, Any] = {"home": folder, "embeddings": NoEmbeddings(), "create": True}
    with (
        open_kb(folder / "faiss", create=True) as faiss,
        MilvusKnowledgeBase.open("scale", location=location, **options) as milvus,
        MilvusKnowledgeBase.open("written", location=location, **options) as written,
    ):
        stored = fill(faiss, vectors, num_chunks)
        started = time.perf_counter()
        report = copy(faiss, milvus)
        copied = report.num_chunks / (time.perf_counter() - started)
        slowly = fill(written, vectors, min(num_chunks, 1000))
        questions = vectors.block(-1, QUESTIONS)
        words = [text.split()[:8] for text in texts(999, QUESTIONS)]
        times: dict[str, list[float]] = {"FAISS": [], "milvus-lite": []}
        shared = []
        for question, terms in zip(questions, words, strict=True):
            here, found = ask(faiss, question, list(dict.fromkeys(terms)))
            there, same = ask(milvus, question, list(dict.fromkeys(terms)))
            times["FAISS"].append(here)
            times["milvus-lite"].append(there)
            shared.append(len({*found} & {*same}) / len(found))
    first = times["milvus-lite"][0]
    return [
        {
            "store": "FAISS",
            "question ms": round(statistics.median(times["FAISS"]), 1),
            "files/s of 50 chunks": round(stored, 1),
        },
        {
            "store": "milvus-lite",
            "question ms": round(statistics.median(times["milvus-lite"]), 1),
            "first question ms": round(first),
            "files/s of 50 chunks": round(slowly, 1),
            "copied chunks/s": round(copied),
            "same candidates": f"{100 * statistics.mean(shared):.1f} %",
        },
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=5000)
    chunks = parser.parse_args().chunks
    with tempfile.TemporaryDirectory() as name:
        server = serve(Path(name))
        try:
            rows = measure(Path(name), chunks)
        finally:
            server.terminate()
            server.wait()
    packages = ["faiss-cpu", "pymilvus", "milvus-lite"]
    save(RESULTS, "milvus_search", packages, {"chunks": chunks, "rows": rows})
    for row in rows:
        print_table([row])


if __name__ == "__main__":
    main()
