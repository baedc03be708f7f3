"""An ingest with a fast embedder, in a process that the fault tests kill.

    python ingest_driver.py HOME DOCS SECONDS_PER_TEXT [--prune]

Prints `started` before the run, a line of JSON for every change after it is stored, and `done`.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
from langchain_core.embeddings import Embeddings

from glm_rag.config import load_config
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag_ingest.pipeline import Ingestion, IngestOptions, Listeners

BATCH = 8


class TinyEmbeddings(Embeddings):
    """The same text gives the same vector, and takes its time."""

    name = "tiny"
    batch_size = BATCH // 4  # a call holds four

    def __init__(self, seconds_per_text=0.0, log=None):
        self.seconds_per_text = seconds_per_text
        self.texts = []

    def embed_query(self, text):
        return [byte + 1.0 for byte in hashlib.sha256(text.encode()).digest()[:8]]

    def embed_documents(self, texts):
        self.texts += texts
        time.sleep(self.seconds_per_text * len(texts))
        return [self.embed_query(text) for text in texts]


def open_kb(home, seconds_per_text=0.0):
    return KnowledgeBase.open(
        "f", home=Path(home), embeddings=TinyEmbeddings(seconds_per_text), create=True
    )


def contents(kb):
    """Places and texts of the chunks with their vectors.

    Not their ids: of two files with the same bytes, the one that is read first has the chunks.
    """
    rows = kb._database.rows(
        "SELECT c.start_offset, c.text, v.vector FROM chunks AS c JOIN vectors AS v ON v.id = c.id"
    )
    return {(start, text): np.frombuffer(vector, "<f4").tobytes() for start, text, vector in rows}


def main():
    home, docs, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])

    def say(line):
        print(line, flush=True)  # noqa: T201

    with open_kb(home, seconds) as kb:
        say("started")
        listeners = Listeners(
            on_change=lambda change: say(json.dumps([change.action, change.source]))
        )
        options = IngestOptions(prune="--prune" in sys.argv)
        report = Ingestion(docs, kb, load_config(), options, listeners).run()
        say(f"embedded {report.num_embedded}")
    say("done")


if __name__ == "__main__":
    main()
