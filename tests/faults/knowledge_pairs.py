"""Processes that write pairs of documents or read them; run by the tests of readers and writers.

    python knowledge_pairs.py HOME write FIRST SECONDS
    python knowledge_pairs.py HOME read SEED SECONDS

The writer stores, replaces and removes documents only in pairs, each pair in one transaction, and
both of a pair say the same version. The reader prints how many times it looked, and fails when it
ever sees half a pair or two versions.
"""

import random
import sys
import time
from collections import Counter
from pathlib import Path

import knowledge_writer as writer
import numpy as np

from glm_rag.types import Chunk, ExtractedDocument

# A process that a busy machine lets wait goes on until it took part.
LEAST = 4
NUM_PAIRS = 6


def half(source, container, pair, version):
    text = f"pair {pair} version {version} common"
    document = ExtractedDocument(
        source, source, text, f"{version}", 1, 0.0, "text/plain", "1", container=container
    )
    return document, [Chunk(0, len(text), text)]


def put_pair(kb, pair, version):
    name = f"pair{pair}"
    kb.put_documents(
        [
            (document, chunks, kb.embed_chunks(chunks))
            for document, chunks in (
                half(name, "", pair, version),
                half(f"{name}#m", name, pair, version),
            )
        ]
    )


def write(kb, first, seconds):
    chance, version, deadline = random.Random(first), first, time.monotonic() + seconds
    while time.monotonic() < deadline or version - first < LEAST:
        pair = chance.randrange(NUM_PAIRS)
        if chance.random() < 0.3:
            kb.remove(f"pair{pair}")
        else:
            put_pair(kb, pair, version)
            version += 1
    return version - first


def check(texts):
    """Each pair is there whole and in one version, or not at all."""
    seen = Counter(tuple(text.split()[1:4:2]) for text in texts)
    assert set(seen.values()) <= {2}, seen
    assert len({pair for pair, _ in seen}) == len(seen), seen


def read(kb, seed, seconds):
    chance, deadline, count = random.Random(seed), time.monotonic() + seconds, 0
    while time.monotonic() < deadline or count < LEAST:
        limit = 2 * NUM_PAIRS + 5
        look = chance.randrange(3)
        if look == 0:
            check([d.page_content for d in kb.similarity_search("x", k=limit)])
        elif look == 1:
            found = kb.candidates(np.ones(2, dtype=np.float32), ["common"], limit=limit)
            check([c.document.page_content for c in found.candidates])
            assert found.document_frequency.get("common", 0) == found.num_chunks
            assert found.num_chunks == len(found.candidates)
        else:
            sources = {info.source for info in kb.documents()}
            assert sources == {s.removesuffix("#m") for s in sources} | {
                f"{s.removesuffix('#m')}#m" for s in sources
            }
        count += 1
    return count


def main():
    home, mode, number, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    act = write if mode == "write" else read
    with writer.open_kb(home, create=True) as kb:
        print(act(kb, number, float(seconds)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
