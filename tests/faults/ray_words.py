"""An embedder for Ray's nodes: cheap, the same everywhere, and it tells in which process it runs.

Texts with one of two words kill the process that counts or embeds them.
"""

import hashlib
import os
import signal
import time
from pathlib import Path

from langchain_core.embeddings import Embeddings

KILLS_READER, KILLS_EMBEDDER = "kill-the-reader", "kill-the-embedder"


class NodeEmbeddings(Embeddings):
    """Args: folder: gets a file called by the process id from every process that embeds."""

    name = "node words"
    max_tokens = 512
    batch_size = 2  # a call holds eight

    def __init__(self, folder, seconds_per_text=0.0):
        self.folder = Path(folder)
        self.seconds_per_text = seconds_per_text

    def count_tokens(self, text):
        if KILLS_READER in text:
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 + len(text) // 4

    def embed_query(self, text):
        return [byte + 1.0 for byte in hashlib.sha256(text.encode()).digest()[:16]]

    def embed_documents(self, texts):
        (self.folder / str(os.getpid())).touch()
        if any(KILLS_EMBEDDER in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds_per_text * len(texts))
        return [self.embed_query(text) for text in texts]
