"""Documents in a line, and an embedder that costs nothing."""

import hashlib

import numpy as np
from langchain_core.embeddings import Embeddings

from glm_rag.types import Chunk, ExtractedDocument


class HashEmbeddings(Embeddings):
    """A unit vector that depends on the text alone."""

    def __init__(self, name="hash", dimension=8):
        self.name = name
        self.dimension = dimension

    def embed_query(self, text):
        digest = hashlib.sha256(text.encode()).digest()
        vector = np.frombuffer(digest[: self.dimension], dtype=np.uint8) - 127.5
        return (vector / np.linalg.norm(vector)).tolist()

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


def make_document(source, text, size=20):
    document = ExtractedDocument(
        source=source,
        title=source,
        text=text,
        sha256=hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(),
        size=len(text),
        mtime=1.5,
        media_type="text/plain",
        parser_version="1",
    )
    starts = range(0, len(text), size)
    return document, [Chunk(i, min(i + size, len(text)), text[i : i + size]) for i in starts]
