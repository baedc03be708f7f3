"""How long does a second run take where nothing has changed, and what does a run cost beside it?

    python benchmarks/ingest_unchanged.py

The 3,860 articles of the bulk corpus as single files, with a stand-in for the embedder that takes
no time: twice into the same knowledge base, opened anew. Python's imports are not counted.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from ingest_throughput import read_articles
from langchain_core.embeddings import Embeddings
from support.record import RESULTS, ROOT, print_table, save

from glm_rag.knowledge.base import KnowledgeBase
from glm_rag_ingest.pipeline import ingest


class StandIn(Embeddings):
    """384 numbers from a hash of the text."""

    name = "stand-in"
    max_tokens = 512

    def count_tokens(self, text: str) -> int:
        return 2 + len(text) // 2

    def embed_query(self, text: str) -> list[float]:
        return [byte + 1.0 for byte in hashlib.sha256(text.encode()).digest()] * 12

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def run(documents: Path, home: Path) -> dict[str, Any]:
    started = time.perf_counter()
    with KnowledgeBase.open("b", home=home, embeddings=StandIn(), create=True) as kb:
        report = ingest(documents, kb=kb)
    return {
        "added": report.num_added,
        "unchanged": report.num_skipped,
        "chunks": report.num_chunks,
        "seconds": round(time.perf_counter() - started, 2),
    }


def main() -> None:
    data = Path(os.environ.get("GLM_RAG_TEST_DATA", ROOT.parent / "shared" / "data"))
    with tempfile.TemporaryDirectory() as folder:
        documents, home = Path(folder) / "articles", Path(folder) / "home"
        documents.mkdir()
        for number, text in enumerate(read_articles(data / "bulk", None)):
            (documents / f"{number:05d}.txt").write_text(text, encoding="utf-8")
        rows = [run(documents, home) for _ in range(2)]
    save(RESULTS, "ingest_unchanged", ["faiss-cpu"], {"rows": rows})
    print_table(rows)


if __name__ == "__main__":
    main()
