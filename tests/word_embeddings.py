"""An embedder without a model: a vector of the words a text holds, the same on every machine."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
from langchain_core.embeddings import Embeddings

from glm_rag.text import terms

DIMENSION = 64


class WordEmbeddings(Embeddings):
    """Texts that share words are near each other.

    `gate` is waited for before passages are embedded, so that a test can look at a run under way.
    """

    name = "words"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def embed_query(self, text: str) -> list[float]:
        """A unit vector."""
        vector = np.full(DIMENSION, 0.01)
        for term in terms(text):
            vector[int(hashlib.sha256(term.encode()).hexdigest(), 16) % DIMENSION] += 1
        return (vector / np.linalg.norm(vector)).tolist()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One for each text, once the gate is open."""
        self.gate.wait(30)
        return [self.embed_query(text) for text in texts]
