"""A process that writes to a knowledge base until it is done or killed; run by the fault tests.

    python knowledge_writer.py HOME MODE FIRST COUNT

MODE `loop` puts versions of one document and prints each number after it is stored, `die` kills
itself in the middle of storing the last one, `many` puts COUNT documents of its own.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
from langchain_core.embeddings import Embeddings

from glm_rag.knowledge import records
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.types import Chunk, ExtractedDocument

NUM_CHUNKS = 40


class CountingEmbeddings(Embeddings):
    """A vector that holds the numbers in the text."""

    name = "counting"

    def embed_query(self, text):
        numbers = [float(word) + 1 for word in text.split() if word.isdecimal()]
        return [*numbers, 1.0, 1.0][:2]

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


def open_kb(home, **options):
    return KnowledgeBase.open("kb", home=home, embeddings=CountingEmbeddings(), **options)


def version(number, source="doc"):
    """A document whose every chunk says its version."""
    pieces = [f"chunk {i} of version {number} " for i in range(NUM_CHUNKS)]
    starts = np.cumsum([0, *map(len, pieces)])
    document = ExtractedDocument(
        source, source, "".join(pieces), str(number), 1, 0.0, "text/plain", "1"
    )
    chunks = [
        Chunk(int(start), int(start) + len(piece), piece)
        for start, piece in zip(starts, pieces, strict=False)
    ]
    return document, chunks


def die_at(chunk_index):
    """Kill this process without warning when it stores this chunk."""
    insert = records.insert_chunk

    def insert_or_die(connection, document_id, number, *rest):
        insert(connection, document_id, number, *rest)
        if number == chunk_index:
            os.kill(os.getpid(), signal.SIGKILL)

    records.insert_chunk = insert_or_die


def main():
    home, mode, first, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with open_kb(home, create=True) as kb:
        for number in range(first, first + count):
            if mode == "die" and number == first + count - 1:
                die_at(NUM_CHUNKS // 2)
            source = f"doc{number}" if mode == "many" else "doc"
            kb.put_document(*version(number, source))
            print(number, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
