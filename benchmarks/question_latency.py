"""How long does a question take among 100,000 chunks, without the embedder's share?

    python benchmarks/question_latency.py [--chunks N] [--folder DIR]

Half of the chunks are Chinese, half English: sentences drawn from real texts (news; a novel, an
annual report and a handbook) until a chunk has the length that the splitting gives, so that words
are as common as in real text. Vectors are made up (`support/synthetic_knowledge.py`). Questions:
those of XQuAD, and sentences of the texts themselves, all of whose words occur. Each goes through
`HybridRetriever.search` as `kb.as_retriever()` makes it, one after another, warm, with a stand-in
for the embedder, whose vectors were computed before.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings
from support.distractors import ENGLISH
from support.record import (
    options_over_data,
    print_table,
    progress,
    save,
    warn_if_busy,
)
from support.synthetic_knowledge import CHUNKS_PER_DOCUMENT, Vectors, document

from glm_rag.knowledge import records
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.text import sentence_spans
from glm_rag.types import Language
from glm_rag_ingest.loaders import load

LENGTH: dict[Language, int] = {"en": 900, "zh": 330}  # characters of 256 tokens of the embedder
SPREAD = 1.5
WARM_UP, ASKED = 50, 400
LONGEST: dict[Language, int] = {"en": 90, "zh": 30}  # characters of a sentence that is asked
_BLOCK = 5_000


class Prepared(Embeddings):
    """Vectors of questions that were made before."""

    name = "synthetic"

    def __init__(self, known: dict[str, np.ndarray]) -> None:
        self._known = known

    def embed_query(self, text: str) -> list[float]:
        return self._known[text]  # type: ignore[return-value]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError


def questions(data: Path, language: Language, count: int) -> list[str]:
    """Evenly from XQuAD."""
    content = json.loads((data / "xquad" / f"xquad.{language}.json").read_text("utf-8"))["data"]
    found = [qa["question"] for a in content for p in a["paragraphs"] for qa in p["qas"]]
    return [found[place * len(found) // count] for place in range(count)]


def sentences(data: Path, language: Language) -> list[str]:
    if language == "en":
        texts = [load(data / "documents" / name).documents[0].text for name in ENGLISH]
    else:
        texts = [path.read_text("utf-8") for path in sorted((data / "bulk").glob("*.txt"))]
    return [text[start:end] for text in texts for start, end in sentence_spans(text)]


def chunk_texts(known: list[str], length: int, seed: int) -> Iterator[str]:
    chance = random.Random(seed)
    while True:
        text = ""
        while len(text) < length:
            text += chance.choice(known) + " "
        yield text[:length].strip()


def build(data: Path, folder: Path, num_chunks: int) -> None:
    with KnowledgeBase("scale", folder, embeddings=Prepared({}), create=True) as kb:
        vectors = Vectors(SPREAD)
        with kb._database.write() as connection:
            kb._remember_embedder(connection, vectors.block(0, 1))
        number = 0
        for language in ("en", "zh"):
            pieces = chunk_texts(sentences(data, language), LENGTH[language], 3)
            for _ in range(num_chunks // 2 // _BLOCK):
                with kb._database.write() as connection:
                    store(connection, language, number, vectors.block(number, _BLOCK), pieces)
                number += 1
                progress(f"{number * _BLOCK} chunks")
        kb._index.save()
    (folder / "built.json").write_text(json.dumps({"num_chunks": num_chunks}), encoding="utf-8")


def store(
    connection: Any, language: Language, number: int, block: np.ndarray, pieces: Iterator[str]
) -> None:
    for start in range(0, len(block), CHUNKS_PER_DOCUMENT):
        source = f"doc:{number}:{start}"
        extracted, chunks = document(source, [next(pieces) for _ in range(CHUNKS_PER_DOCUMENT)])
        row = records.insert_document(connection, extracted, language)
        for place, chunk in enumerate(chunks):
            key, vector = chunk.id_for(source), block[start + place]
            records.insert_chunk(connection, row, place, key, chunk, language, vector)


def measure(data: Path, folder: Path) -> dict[str, Any]:
    load_average, chance = warn_if_busy(), random.Random(4)
    asked: dict[str, list[str]] = {}
    languages: tuple[Language, ...] = ("en", "zh")
    for language in languages:
        asked[f"XQuAD, {language}"] = questions(data, language, WARM_UP + ASKED)
        drawn = chance.sample(sentences(data, language), WARM_UP + ASKED)
        asked[f"the texts' sentences, {language}"] = [text[: LONGEST[language]] for text in drawn]
    every = list(dict.fromkeys(question for group in asked.values() for question in group))
    vectors = Vectors(SPREAD).block(-7, len(every))
    embeddings = Prepared(dict(zip(every, vectors, strict=True)))
    with KnowledgeBase("scale", folder, embeddings=embeddings) as kb:
        retriever = kb.as_retriever()
        rows = {}
        for name, group in asked.items():
            taken = []
            for question in group:
                started = time.perf_counter()
                retriever.search(question)
                taken.append(1000 * (time.perf_counter() - started))
            rows[name] = percentiles(taken[WARM_UP:])
        num_chunks = kb.info().num_chunks
    return {
        "load_average": load_average,
        "chunks": num_chunks,
        "questions of each kind": ASKED,
        "rows": rows,
    }


def percentiles(times: list[float]) -> dict[str, float]:
    shares = (("p50_ms", 50), ("p95_ms", 95), ("max_ms", 100))
    return {name: round(float(np.percentile(times, share)), 1) for name, share in shares}


def main() -> None:
    parser = options_over_data(__doc__, vectors=False)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="kept, and not built again")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="glm-rag-latency-"))
    try:
        if not (folder / "built.json").exists():
            build(options.data, folder, options.chunks)
        figures = measure(options.data, folder)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    save(options.out, "question_latency", ["faiss-cpu", "numpy"], figures)
    print_table([{"questions": name, **row} for name, row in figures["rows"].items()])


if __name__ == "__main__":
    main()
