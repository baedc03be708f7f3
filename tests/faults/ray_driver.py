"""An ingest on a Ray cluster, in a process that a test kills.

python ray_driver.py HOME DOCS PIDS ADDRESS SECONDS_PER_TEXT
"""

import sys
from pathlib import Path

from ray_words import NodeEmbeddings

from glm_rag.config import load_config
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag_ingest.pipeline import ingest


def main():
    home, docs, pids, address, seconds = sys.argv[1:]
    embeddings = NodeEmbeddings(pids, float(seconds))
    config = load_config(overrides={"ingestion.engine": "ray", "ingestion.address": address})
    with KnowledgeBase.open("r", home=Path(home), embeddings=embeddings, create=True) as kb:
        ingest(docs, kb, config=config)


if __name__ == "__main__":
    main()
