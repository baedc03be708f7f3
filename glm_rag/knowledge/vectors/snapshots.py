"""Snapshots: files `index/<generation>.faiss`, registered with their checksum in the database.

A file is written under a temporary name, synced, renamed and registered in one transaction, never
changed afterwards, and mapped only after its checksum was found right: FAISS may crash on a damaged
file, so it sees none. A file that was replaced stays for a minute, for a reader that has just read
its number; who has mapped it keeps it for as long as it likes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from glm_rag.knowledge.database import Database
from glm_rag.knowledge.vectors.kinds import is_ivf, load_faiss

logger = logging.getLogger(__name__)

FOLDER = "index"
# A file without a row: what a killed process left, or what a reader may be about to open.
_STALE_SECONDS = 3600.0
_REPLACED_SECONDS = 60.0
# Blocks are hashed side by side: sha256 of 400 MB takes 0.22 s in one thread, 0.12 s in two.
_HASH_BLOCK = 1 << 24
_READ_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A row of the table `snapshots`.

    Attributes:
        sha256: as `checksum` computes it.
        last_id: every vector of the language with an id up to this one is in the file,
        last_deletion: but for those whose deletion has a number up to this one.
        num_trained: how many vectors there were when its lists were trained, 0 for Flat.
    """

    generation: int
    language: str
    sha256: str
    num_bytes: int
    num_vectors: int
    last_id: int
    last_deletion: int
    num_trained: int


_COLUMNS = ", ".join(field.name for field in fields(Snapshot))


def read_snapshots(connection: sqlite3.Connection) -> dict[str, Snapshot]:
    """The newest snapshot of each language."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM snapshots ORDER BY generation")
    return {snapshot.language: snapshot for snapshot in (Snapshot(*row) for row in rows)}


def path_of(folder: Path, generation: int) -> Path:
    """The file of a generation, in the folder of a knowledge base."""
    return folder / FOLDER / f"{generation}.faiss"


def has_file(folder: Path, snapshot: Snapshot) -> bool:
    """Whether there is a file of the right size; `damage` also looks into it."""
    try:
        return path_of(folder, snapshot.generation).stat().st_size == snapshot.num_bytes
    except OSError:
        return False


def damage(folder: Path, snapshot: Snapshot) -> str:
    """What is wrong with the bytes of a snapshot's file, "" if nothing."""
    path = path_of(folder, snapshot.generation)
    try:
        if path.stat().st_size != snapshot.num_bytes or checksum(path) != snapshot.sha256:
            return f"{path} is damaged"
    except OSError as error:
        return f"cannot read {path} ({error.strerror})"
    return ""


def open_snapshot(
    folder: Path, snapshot: Snapshot, dimension: int, *, to_change: bool = False
) -> Any | None:
    """The FAISS index of a snapshot; None, after a warning, if it cannot be used.

    Args:
        to_change: read it into memory. Otherwise it is mapped, and FAISS would end the process
            if somebody changed it.
    """
    wrong = damage(folder, snapshot)
    if not wrong:
        faiss = load_faiss()
        path = path_of(folder, snapshot.generation)
        try:
            index = faiss.read_index(str(path), 0 if to_change else faiss.IO_FLAG_MMAP_IFC)
            if (index.ntotal, index.d) == (snapshot.num_vectors, dimension) and (
                is_ivf(index) == bool(snapshot.num_trained)
            ):
                return index
            wrong = f"{path} does not hold what it should"
        except RuntimeError:  # of another version of FAISS
            wrong = f"{path} cannot be read by this version of FAISS"
    logger.warning("%s: rebuilding the index from the database", wrong)
    return None


def write_file(folder: Path, index: Any) -> tuple[Path, str, int]:
    """Write and sync a temporary file; its path, checksum and size.

    Raises:
        OSError: the disk is full, no permission.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    path = folder / FOLDER / f"{uuid.uuid4().hex}.tmp"
    try:
        try:
            load_faiss().write_index(index, str(path))
        except RuntimeError as error:  # FAISS tells only where in its source it failed
            raise OSError(0, "the disk is full or may not be written") from error
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return path, checksum(path), path.stat().st_size
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def register(
    connection: sqlite3.Connection, folder: Path, temporary: Path, snapshot: Snapshot
) -> Path:
    """Inside a write: give the file its generation and put it in place of the language's older.

    Deletions that no snapshot needs any more are forgotten with it.

    Returns:
        Where the file is now; it is to be removed if the transaction fails.
    """
    old = connection.execute(
        "SELECT generation FROM snapshots WHERE language = ?", (snapshot.language,)
    ).fetchall()
    columns = _COLUMNS.split(", ")[1:]
    cursor = connection.execute(
        f"INSERT INTO snapshots ({', '.join(columns)}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [getattr(snapshot, column) for column in columns],
    )
    connection.execute(
        "DELETE FROM snapshots WHERE language = ? AND generation < ?",
        (snapshot.language, cursor.lastrowid),
    )
    forget_deletions(connection)
    for (generation,) in old:
        _note_time(path_of(folder, generation))
    path = path_of(folder, cursor.lastrowid or 0)
    temporary.replace(path)
    _sync_folder(path.parent)
    return path


def unregister(connection: sqlite3.Connection, folder: Path, snapshot: Snapshot) -> None:
    """Inside a write: forget a snapshot; its file goes with the next sweep."""
    _note_time(path_of(folder, snapshot.generation))
    connection.execute("DELETE FROM snapshots WHERE generation = ?", (snapshot.generation,))
    forget_deletions(connection)


def advance(connection: sqlite3.Connection, snapshot: Snapshot, now: Snapshot) -> None:
    """Inside a write: note that a snapshot is right up to another moment too."""
    connection.execute(
        "UPDATE snapshots SET last_id = ?, last_deletion = ? WHERE generation = ?",
        (now.last_id, now.last_deletion, snapshot.generation),
    )
    forget_deletions(connection)


def forget_deletions(connection: sqlite3.Connection) -> None:
    """Inside a write: forget the deletions that every snapshot has behind it, all without one.

    A reader that still needed one notices the gap in the numbers and loads anew.
    """
    connection.execute(
        "DELETE FROM deletions WHERE number <= coalesce("
        "(SELECT min(last_deletion) FROM snapshots), (SELECT max(number) FROM deletions))"
    )


def sweep(database: Database) -> None:
    """Remove files that were replaced a while ago, and what a killed process left behind.

    A generation above the registered ones may be of a write that has not ended.
    """
    folder = database.folder
    with database.read() as connection:
        registered = {known.generation for known in read_snapshots(connection).values()}
    newest = max(registered, default=0)
    try:
        for path in (folder / FOLDER).iterdir():
            number = int(path.stem) if path.stem.isdecimal() else newest + 1
            kept_for = _REPLACED_SECONDS if number <= newest else _STALE_SECONDS
            if number not in registered and _age(path) > kept_for:
                path.unlink(missing_ok=True)
    except OSError as error:
        logger.debug("cannot sweep %s: %s", folder / FOLDER, error)


def checksum(path: Path) -> str:
    """SHA-256 of the SHA-256 of the file's blocks of 16 MiB.

    Raises:
        OSError: it cannot be read.
    """
    starts = range(0, path.stat().st_size, _HASH_BLOCK)
    hash_block = partial(_hash_block, path)
    try:
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            digests = list(pool.map(hash_block, starts))
    except RuntimeError:  # the interpreter is ending and starts no threads any more
        digests = list(map(hash_block, starts))
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _hash_block(path: Path, start: int) -> bytes:
    digest, left = hashlib.sha256(), _HASH_BLOCK
    buffer = memoryview(bytearray(_READ_BLOCK))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left and (count := file.readinto(buffer)):
            digest.update(buffer[:count])
            left -= count
    return digest.digest()


def _note_time(path: Path) -> None:
    """From now on `sweep` counts the minute."""
    try:
        os.utime(path)
    except OSError:  # it is gone already
        return


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
