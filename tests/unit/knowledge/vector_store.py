"""Chunks with nothing but a language and a vector, in a real database, and what is true of them."""

from contextlib import closing

import numpy as np
import pytest

from glm_rag.knowledge import records
from glm_rag.knowledge.database import Database
from glm_rag.knowledge.index import VectorIndex
from glm_rag.knowledge.vectors.kinds import IndexLimits
from glm_rag.types import Chunk, ExtractedDocument

DIMENSION = 16
# Everything happens with a handful of vectors.
SMALL = IndexLimits(flat=60, retrain_growth=4, min_changes=10, change_share=0.1, scanned=5)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class VectorStore:
    """Writes through a connection of its own, as another process would, and remembers it all."""

    def __init__(self, folder, seed=0):
        self.folder = folder
        self.chance = np.random.default_rng(seed)
        self.truth = {}  # id: (language, vector, key)
        self.database = Database(folder, create=True)
        self._number = 0

    def close(self):
        self.database.close()

    def random(self, count=1, dimension=DIMENSION):
        return unit(self.chance.standard_normal((count, dimension)))

    def add(self, language, count=1, dimension=DIMENSION):
        """Ids of new chunks with random vectors, all in one document and transaction."""
        vectors = self.random(count, dimension)
        self._number += 1
        source = f"doc{self._number}"
        document = ExtractedDocument(source, source, "x" * count, source, 1, 0.0, "text/plain", "1")
        with self.database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('dimension', ?)", (str(dimension),)
            )
            document_id = records.insert_document(connection, document, language)
            keys = [f"{source}:{place}" for place in range(count)]
            for place, (key, vector) in enumerate(zip(keys, vectors, strict=True)):
                chunk = Chunk(place, place + 1, "x")
                records.insert_chunk(connection, document_id, place, key, chunk, language, vector)
            rows = connection.execute(
                "SELECT id FROM chunks WHERE document_id = ? ORDER BY chunk_index", (document_id,)
            )
            ids = [row[0] for row in rows]
        for row_id, key, vector in zip(ids, keys, vectors, strict=True):
            self.truth[row_id] = (language, vector, key)
        return ids

    def delete(self, ids):
        with self.database.write() as connection:
            records.delete_chunks(connection, [self.truth.pop(i)[2] for i in ids])

    def update(self, ids):
        """The chunks come back with new vectors, and so with new ids."""
        languages = [self.truth[i][0] for i in ids]
        self.delete(ids)
        for language in languages:
            self.add(language)

    def some(self, count, language=None):
        ids = [i for i, known in self.truth.items() if language in (None, known[0])]
        return self.chance.permutation(ids)[:count].tolist()

    def nearest(self, vector, limit, language=None, allowed=None):
        """What a search must find, by reading everything."""
        scores = {
            i: float(known[1] @ vector)
            for i, known in self.truth.items()
            if language in (None, known[0]) and (allowed is None or i in allowed)
        }
        return sorted(scores, key=lambda i: (-scores[i], i))[:limit]

    def reader(self, limits=SMALL):
        return Reader(self.folder, limits)

    def save(self, limits=SMALL):
        """What a writer does when it closes."""
        with closing(Reader(self.folder, limits)) as writer:
            writer.index.save()

    def snapshots(self):
        return sorted(path.name for path in (self.folder / "index").glob("*"))

    def generations(self):
        return dict(self.database.rows("SELECT language, generation FROM snapshots"))


class Reader:
    """A database connection and an index of its own, like another process."""

    def __init__(self, folder, limits=SMALL):
        self.database = Database(folder)
        self.index = VectorIndex(self.database, limits)

    def close(self):
        self.database.close()

    def refresh(self):
        with self.database.read() as connection:
            self.index.refresh(connection)

    def search(self, vector, limit=10, **options):
        with self.database.read() as connection:
            self.index.refresh(connection)
            return self.index.search(vector, limit, **options)

    def ids(self, vector, limit=10, **options):
        return [row_id for row_id, _ in self.search(vector, limit, **options)]


def check(store, reader):
    """Every kind of search agrees with the truth."""
    vector = store.random()[0]
    for language in (None, "en", "zh"):
        assert reader.ids(vector, language=language) == store.nearest(vector, 10, language)
    few, many = sorted(store.some(SMALL.scanned)), sorted(store.some(len(store.truth) // 2))
    for allowed in (few, many):
        for language in (None, "zh"):
            found = reader.ids(vector, language=language, allowed=np.array(allowed, np.int64))
            assert found == store.nearest(vector, 10, language, set(allowed))
    everything = len(store.truth) + 5
    assert sorted(reader.ids(vector, everything)) == sorted(store.truth)
    assert reader.index.languages == sorted({known[0] for known in store.truth.values()})
    assert len(reader.index) == len(store.truth)
    for row_id, score in reader.search(vector, 3):
        assert score == pytest.approx(float(store.truth[row_id][1] @ vector), abs=1e-6)
        assert (reader.index.vector(row_id) == store.truth[row_id][1]).all()
