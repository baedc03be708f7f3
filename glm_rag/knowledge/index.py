"""The FAISS index: derived from the vectors in SQLite, never needed to keep anything.

A snapshot `index/<generation>.faiss` saves reading all vectors at the next start. It is written
under a temporary name, synced, renamed, and registered with its checksum in the database; one
that is lost, damaged or of another database is ignored and the vectors are read from SQLite.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from glm_rag.errors import KnowledgeBaseError, MissingDependencyError
from glm_rag.knowledge.database import Database

logger = logging.getLogger(__name__)

_BATCH = 10_000
_STALE_SECONDS = 3600.0


class VectorIndex:
    """Exact inner-product search over all chunks of a database.

    `refresh` must be called inside `database.read()`; then index and rows are of one moment.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._folder = database.folder / "index"
        self._index: Any = None
        self._change = -1
        self._last_id = 0
        self._language_ids: dict[str, np.ndarray] = {}

    @property
    def dimension(self) -> int:
        """Length of the vectors, 0 while there are none."""
        return int(self._index.d) if self._index is not None else 0

    @property
    def languages(self) -> list[str]:
        """Languages that have chunks."""
        return sorted(self._language_ids)

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Add what is new in SQLite, whoever wrote it, and drop what is gone."""
        change = self._database.change()
        if change == self._change:
            return
        dimension = int(self._database.get_meta("dimension") or 0)
        if dimension != self.dimension:
            self._index, self._last_id = None, 0
        if dimension and self._index is None:
            self._load(connection, dimension)
        if self._index is not None:
            self._add_new(connection)
            self._drop_deleted(connection)
        self._change = change

    def search(
        self,
        vector: np.ndarray,
        limit: int,
        *,
        language: str | None = None,
        allowed: np.ndarray | None = None,
    ) -> list[tuple[int, float]]:
        """The nearest chunks as (id, inner product), best first.

        Args:
            vector: float32 of length `dimension`.
            language: search only chunks of this language.
            allowed: search only these ids.

        Raises:
            KnowledgeBaseError: the vector has another length.
        """
        if self._index is None or limit < 1:
            return []
        if vector.shape != (self.dimension,):
            raise KnowledgeBaseError(
                f"the question's vector has shape {vector.shape}, the knowledge base's vectors "
                f"have {self.dimension} numbers: search with the embedder that built it"
            )
        ids = self._selected(language, allowed)
        if ids is None:
            parameters = None
        elif len(ids) == 0:
            return []
        else:
            selector, _bitmap = self._selector(ids)  # the bits must outlive the search
            parameters = _faiss().SearchParameters(sel=selector)
        scores, found = self._index.search(vector[None], limit, params=parameters)
        return [
            (int(i), float(score)) for i, score in zip(found[0], scores[0], strict=True) if i >= 0
        ]

    def vector(self, row_id: int) -> np.ndarray:
        """The stored vector of an id, `[dimension]`."""
        vector: np.ndarray = self._index.reconstruct(row_id)
        return vector

    def save(self) -> None:
        """Write a snapshot if the last one is not of the present state."""
        with self._database.read() as connection:
            self.refresh(connection)
            state = (self._last_id, len(self))
            latest = connection.execute(
                "SELECT last_id, num_vectors FROM snapshots ORDER BY generation DESC LIMIT 1"
            ).fetchone()
        if self._index is None or latest == state:
            return
        data = _faiss().serialize_index(self._index).tobytes()
        try:
            self._write(data, *state)
        except (OSError, KnowledgeBaseError) as error:
            # Nothing is lost: the vectors are in SQLite.
            logger.warning("no snapshot of the index in %s: %s", self._folder, error)

    def rebuild(self) -> None:
        """Write the snapshot anew from the vectors in SQLite."""
        with self._database.write(changes_chunks=False) as connection:
            connection.execute("DELETE FROM snapshots")
        self._index, self._change, self._last_id = None, -1, 0
        self.save()

    def problems(self) -> list[str]:
        """One line for every snapshot that is damaged."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT generation, sha256 FROM snapshots").fetchall()
        return [
            f"the snapshot {generation}.faiss is damaged"
            for generation, sha256 in rows
            if self._read(generation, sha256) is None
        ]

    def __len__(self) -> int:
        return int(self._index.ntotal) if self._index is not None else 0

    def _load(self, connection: sqlite3.Connection, dimension: int) -> None:
        rows = connection.execute(
            "SELECT generation, sha256, last_id, num_vectors FROM snapshots "
            "ORDER BY generation DESC"
        )
        for generation, sha256, last_id, num_vectors in rows:
            index = self._read(generation, sha256)
            if index is not None and (index.ntotal, index.d) == (num_vectors, dimension):
                self._index, self._last_id = index, last_id
                return
        faiss = _faiss()
        self._index, self._last_id = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension)), 0

    def _read(self, generation: int, sha256: str) -> Any:
        path = self._folder / f"{generation}.faiss"
        try:
            data = path.read_bytes()
        except OSError as error:
            logger.warning("cannot read %s (%s): rebuilding the index", path, error.strerror)
            return None
        # FAISS may crash on a damaged file, so it sees none.
        if hashlib.sha256(data).hexdigest() != sha256:
            logger.warning("%s is damaged: rebuilding the index from the database", path)
            return None
        return _faiss().deserialize_index(np.frombuffer(data, dtype=np.uint8))

    def _add_new(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "SELECT id, vector FROM vectors WHERE id > ? ORDER BY id", (self._last_id,)
        )
        while rows := cursor.fetchmany(_BATCH):
            ids = np.array([row[0] for row in rows], dtype=np.int64)
            data = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
            if data.size != len(ids) * self.dimension:
                raise KnowledgeBaseError(
                    f"{self._database.path} is damaged (vectors of unequal length): restore it "
                    "from a backup, or delete the knowledge base and ingest the files again"
                )
            vectors = data.reshape(len(ids), self.dimension)
            self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)
            self._last_id = int(ids[-1])

    def _drop_deleted(self, connection: sqlite3.Connection) -> None:
        alive: dict[str, list[int]] = {}
        for language, row_id in connection.execute("SELECT language, id FROM chunks"):
            alive.setdefault(language, []).append(row_id)
        self._language_ids = {
            language: np.array(ids, dtype=np.int64) for language, ids in alive.items()
        }
        if sum(map(len, alive.values())) == len(self):
            return
        kept = np.concatenate([*self._language_ids.values(), np.zeros(0, dtype=np.int64)])
        gone = np.setdiff1d(_faiss().vector_to_array(self._index.id_map), kept)
        self._index.remove_ids(gone)

    def _selected(self, language: str | None, allowed: np.ndarray | None) -> np.ndarray | None:
        """Ids to search among, None for all."""
        if language is None or self.languages == [language]:
            return allowed
        ids = self._language_ids.get(language, np.zeros(0, dtype=np.int64))
        return ids if allowed is None else np.intersect1d(ids, allowed)

    def _selector(self, ids: np.ndarray) -> tuple[Any, np.ndarray]:
        bits = np.zeros(self._last_id + 1, dtype=bool)
        bits[ids] = True
        bitmap = np.packbits(bits, bitorder="little")
        return _faiss().IDSelectorBitmap(bitmap), bitmap

    def _write(self, data: bytes, last_id: int, num_vectors: int) -> None:
        self._folder.mkdir(exist_ok=True)
        temporary = self._folder / f"{uuid.uuid4().hex}.tmp"
        try:
            _write_synced(temporary, data)
            with self._database.write(changes_chunks=False) as connection:
                cursor = connection.execute(
                    "INSERT INTO snapshots (language, sha256, num_bytes, num_vectors, last_id, "
                    "last_deletion, num_trained) VALUES ('', ?, ?, ?, ?, 0, 0)",
                    (hashlib.sha256(data).hexdigest(), len(data), num_vectors, last_id),
                )
                generation = cursor.lastrowid or 0
                temporary.replace(self._folder / f"{generation}.faiss")
                _sync_folder(self._folder)
                connection.execute("DELETE FROM snapshots WHERE generation < ?", (generation,))
        finally:
            temporary.unlink(missing_ok=True)
        self._remove_older(generation)

    def _remove_older(self, generation: int) -> None:
        """Remove snapshots that were replaced, and what a killed process left half written."""
        for path in self._folder.iterdir():
            is_old = path.stem.isdecimal() and int(path.stem) < generation
            if is_old or (path.suffix == ".tmp" and _age(path) > _STALE_SECONDS):
                path.unlink(missing_ok=True)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError.for_extra("faiss", "cpu") from error
    return faiss
