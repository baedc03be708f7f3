"""Passages that answer nothing of XQuAD, as the ingestion reads and cuts them.

Chinese: news articles of the bulk corpus. English: long documents (a novel, an annual report, a
handbook), of each the same number of chunks, taken evenly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from glm_rag.embeddings import TokenEmbeddings
from glm_rag.settings import SplittingSettings
from glm_rag.types import Chunk, ExtractedDocument
from glm_rag_ingest.loaders import load
from glm_rag_ingest.splitting import split

ENGLISH = ("war-and-peace.txt", "en-10k.html", "en-handbook-872p.docx")
# Ten times as many chunks as XQuAD's paragraphs of a language have.
TEN_TIMES = {"en": 2800, "zh": 2700}
_SHORT = 40  # characters: page numbers and single cells are no passages

Cut = tuple[ExtractedDocument, list[Chunk]]


def distractors(
    data: Path, language: str, count: int, embeddings: TokenEmbeddings
) -> Iterator[Cut]:
    """Documents with their chunks, `count` chunks together or as many as there are."""
    if not count:
        return
    documents = _english(data) if language == "en" else _chinese(data)
    cuts = [(document, cut(document, embeddings)) for document in documents]
    cuts.sort(key=lambda item: len(item[1]))
    for number, (document, chunks) in enumerate(cuts):
        share = round(count / (len(cuts) - number))  # what short documents lack, long ones give
        chosen = chunks if len(chunks) <= share else _evenly(chunks, share)
        count -= len(chosen)
        if chosen:
            yield document, chosen


def _evenly(chunks: list[Chunk], count: int) -> list[Chunk]:
    return [chunks[place * len(chunks) // count] for place in range(count)]


def cut(document: ExtractedDocument, embeddings: TokenEmbeddings) -> list[Chunk]:
    """As `glm-rag ingest` does, without what is too short to say anything."""
    settings = SplittingSettings()
    chunks = split(document, embeddings.count_tokens, settings, embeddings.max_tokens)
    return [chunk for chunk in chunks if len(chunk.text) >= _SHORT]


def _english(data: Path) -> list[ExtractedDocument]:
    return [load(data / "documents" / name).documents[0] for name in ENGLISH]


def _chinese(data: Path) -> list[ExtractedDocument]:
    """Every third article."""
    lines = [
        line
        for path in sorted((data / "bulk").glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    return [
        ExtractedDocument(f"news:{n}", f"news {n}", lines[n], "", 0, 0.0, "text/plain", "")
        for n in range(0, len(lines), 3)
    ]
