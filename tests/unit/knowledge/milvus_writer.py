"""Puts two versions of a file in turns until it is killed: URI, database, data folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from small_documents import HashEmbeddings, make_document

from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase
from glm_rag.knowledge.milvus.naming import Location

VERSIONS = ("the old version of it. " * 40, "the new version of it, longer. " * 40)

if __name__ == "__main__":
    uri, database, home = sys.argv[1:]
    with MilvusKnowledgeBase.open(
        "kb", location=Location(uri, "", database), home=Path(home), embeddings=HashEmbeddings()
    ) as kb:
        number = 0
        while True:
            kb.put_document(*make_document("a", VERSIONS[number % 2]))
            print(number, flush=True)  # noqa: T201
            number += 1
