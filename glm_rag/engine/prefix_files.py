"""Kept sequences as files in a folder that several processes share."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from glm_rag.engine.cache import KVCache
from glm_rag.engine.cache_file import PARTIAL, SUFFIX, load_cache, read_header, save_cache
from glm_rag.engine.prefix_index import PrefixIndex, id_key
from glm_rag.errors import CheckpointError

logger = logging.getLogger(__name__)

# Files of passages that were read ahead of time; the last to go when the folder is full.
_PINNED = "w-"
_PARTIAL_LIFETIME = 3600.0
# File systems stamp a folder with a clock of some milliseconds.
_CLOCK_STEP_NS = 1_000_000_000


class PrefixFiles:
    """Saved KV caches of one model in `root/key`, the folder's size bounded over all models.

    Names come from the ids, files appear and vanish in one step and are checked when read, so
    any number of processes may read, write and remove at once. A damaged or foreign file is
    removed. Nothing but `save` raises for what the disk does.

    Any thread may use it.

    Args:
        root: folder of all models. key: `fingerprint` of this one.
        budget: most bytes of all files under `root`; the least recently used go first.

    Attributes:
        lock: of what is known of the files. It is not held while a file is written, which takes
            seconds for a long sequence.
    """

    def __init__(self, root: Path, key: str, budget: int) -> None:
        self.root, self.key, self.budget = root, key, budget
        self.folder = root / key
        self._index: PrefixIndex[Path] = PrefixIndex()
        self._seen: dict[str, bytes] = {}  # key of the ids by file name
        self._stamp = 0
        self.lock = threading.RLock()
        self._writing = threading.Lock()  # one at a time, so that the budget holds

    def longest(self, ids: bytes) -> tuple[int, bytes | None]:
        """Most leading ids that a file holds, and the key of that file."""
        with self.lock:
            self._refresh()
            return self._index.longest(ids)

    def holds(self, token_ids: Sequence[int]) -> bool:
        """Whether a file has all of these ids."""
        return self.longest(id_key(token_ids))[0] == len(token_ids)

    def load(self, entry: bytes, empty: KVCache) -> bool:
        """Fill a cache from a file and mark the file as used; False, and gone, if it is bad."""
        with self.lock:
            path = self._index.pop(entry)
            try:
                load_cache(path, empty, key=self.key)
            except CheckpointError as error:
                self._discard(path, error)
                return False
            self._index.put(entry, path)
        with contextlib.suppress(OSError):
            os.utime(path)
        return True

    def save(self, cache: KVCache, *, pinned: bool = False) -> int:
        """Write a cache unless its tokens are here; returns the bytes written.

        Files that hold only a beginning of it are removed: it serves in their place.

        Raises:
            OSError: the folder cannot be written to.
        """
        ids = id_key(cache.token_ids)
        size = cache.length * cache.bytes_per_column
        with self._writing:
            with self.lock:
                found, entry = self.longest(ids)
                if size > self.budget or (found == cache.num_tokens and entry is not None):
                    return 0
                self.folder.mkdir(parents=True, exist_ok=True)
                self._make_room(size)
            name = hashlib.sha256(ids).hexdigest()[:32] + SUFFIX
            path = self.folder / (_PINNED + name if pinned else name)
            written = save_cache(cache, path, key=self.key)
            with self.lock:
                self._came(ids, path)
        return written

    def _came(self, ids: bytes, path: Path) -> None:
        """A new file is there, and serves in the place of those that hold a beginning of it."""
        self._seen[path.name] = ids
        self._index.put(ids, path)
        for shorter in self._index.beginnings(ids):
            if not self._index.get(shorter).name.startswith(_PINNED):
                self._remove(self._index.pop(shorter))

    def num_bytes(self) -> int:
        """Bytes of all files under the root."""
        return sum(size for _, _, size, _ in self._files())

    def _refresh(self) -> None:
        """Read the headers of files that came, forget those that went."""
        try:
            stamp = self.folder.stat().st_mtime_ns
        except OSError:
            return
        if stamp == self._stamp:
            return
        names = {path.name for path in self.folder.glob(f"*{SUFFIX}")}
        for name in self._seen.keys() - names:
            ids = self._seen.pop(name)
            if ids in self._index:
                self._index.pop(ids)
        for name in names - self._seen.keys():
            self._read(self.folder / name)
        # Until the clock has moved on, another change may carry the same stamp.
        settled = time.time_ns() - stamp > _CLOCK_STEP_NS
        self._stamp = stamp if settled else 0

    def _read(self, path: Path) -> None:
        try:
            header = read_header(path)
            if header.key != self.key:
                raise CheckpointError(f"{path} belongs to another model")
        except CheckpointError as error:
            self._discard(path, error)
            return
        ids = id_key(header.token_ids)
        self._seen[path.name] = ids
        self._index.put(ids, path)

    def _discard(self, path: Path, error: CheckpointError) -> None:
        if path.exists():
            logger.warning("%s: removing it, it will be computed anew", error)
        self._remove(path)

    def _remove(self, path: Path) -> None:
        ids = self._seen.pop(path.name, None)
        if ids is not None and ids in self._index and self._index.get(ids) == path:
            self._index.pop(ids)
        with contextlib.suppress(OSError):
            path.unlink()

    def _make_room(self, size: int) -> None:
        files = sorted(self._files())
        total = sum(each for _, _, each, _ in files)
        for _, _, each, path in files:
            if total + size <= self.budget:
                return
            self._remove(path)
            total -= each

    def _files(self) -> list[tuple[bool, float, int, Path]]:
        """(pinned, last used, bytes, path) of every file; leftovers of killed processes go."""
        found = []
        for path in self.root.glob("*/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.name.startswith(PARTIAL):
                    if time.time() - status.st_mtime > _PARTIAL_LIFETIME:
                        path.unlink()
                elif path.suffix == SUFFIX:
                    pinned = path.name.startswith(_PINNED)
                    found.append((pinned, status.st_mtime, status.st_size, path))
        return found
