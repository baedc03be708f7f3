"""Sequences that were computed before, so that a prompt starts where it differs from them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from glm_rag.engine.cache import KVCache
from glm_rag.engine.prefix_files import PrefixFiles
from glm_rag.engine.prefix_index import PrefixIndex, id_key
from glm_rag.types import CacheLimits

logger = logging.getLogger(__name__)

# Shorter sequences are computed again sooner than a file for them pays.
_MIN_SAVED_TOKENS = 128
# A sequence is written when the files hold less than this share of it.
_HELD_SHARE = 0.75


class PrefixStore:
    """Keeps KV caches within byte budgets: in memory, and in files for other processes and days.

    Causal attention makes reuse exact: keys and values of a token depend on the tokens before
    it alone, so the columns of a common beginning are those of the new prompt. Kept caches are
    never changed; a request gets a copy. Any thread may use it.

    Args:
        limits: budgets and folder.
        key: `fingerprint` of the model; kept files of another key are never used.
    """

    def __init__(self, limits: CacheLimits, key: str) -> None:
        self.limits = limits
        self.files: PrefixFiles | None = None
        if limits.folder is not None and limits.disk_bytes:
            self.files = PrefixFiles(Path(limits.folder), key, limits.disk_bytes)
        self._kept: PrefixIndex[KVCache] = PrefixIndex()
        self._order: dict[bytes, None] = {}  # least recently used first
        self._num_bytes = 0
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Bytes of all caches kept in memory; never above the budget."""
        return self._num_bytes

    def __len__(self) -> int:
        return len(self._kept)

    def start(
        self,
        token_ids: Sequence[int],
        new_cache: Callable[[], KVCache],
        *,
        room: int,
        others: Sequence[KVCache] = (),
    ) -> KVCache:
        """A cache with the longest beginning of `token_ids` there is; empty if there is none.

        Args:
            new_cache: makes an empty cache of the model.
            room: columns to make room for.
            others: caches in use that may be copied from, besides those that are kept.
        """
        wanted = id_key(token_ids)
        with self._lock:
            shared, kept = self._in_memory(wanted)
        for other in others:
            if (common := other.common_prefix(token_ids)) > shared:
                shared, kept = common, other
        from_file = None
        if self.files is not None:
            from_file = _in_files(self.files, wanted, shared, new_cache)
        if from_file is not None:
            from_file.truncate(from_file.common_prefix(token_ids))
            from_file.reserve(room)
            return from_file
        return kept.fork(shared, capacity=room) if kept is not None else new_cache()

    def keep(self, cache: KVCache) -> bool:
        """Take over a cache that nobody uses any more; whether it is kept in memory."""
        ids = id_key(cache.token_ids)
        size = cache.length * cache.bytes_per_column
        if not ids or size > self.limits.memory_bytes:
            return False
        with self._lock:
            shared, holder = self._kept.longest(ids)
            if holder is not None and shared == cache.num_tokens:
                self._touch(holder)  # it holds all of this one
                return True
            for shorter in self._kept.beginnings(ids):
                self._drop(shorter)
            while self._num_bytes + size > self.limits.memory_bytes:
                self._drop(next(iter(self._order)))
            # Without the room that was reserved for a longer answer.
            kept = cache if cache.capacity == cache.length else cache.fork()
            self._kept.put(ids, kept)
            self._order[ids] = None
            self._num_bytes += kept.num_bytes
        return True

    def save(self, cache: KVCache) -> None:
        """Write a finished sequence to its file, unless the files hold most of it already.

        A full or read-only disk costs the reuse, never the answer.
        """
        if self.files is None or cache.num_tokens < _MIN_SAVED_TOKENS:
            return
        held, _ = self.files.longest(id_key(cache.token_ids))
        if held >= _HELD_SHARE * cache.num_tokens:
            return
        try:
            self.files.save(cache)
        except OSError as error:
            logger.warning("cannot keep a KV cache in %s: %s", self.files.folder, error)

    def clear(self) -> None:
        """Forget what is in memory; files stay."""
        with self._lock:
            for ids in list(self._order):
                self._drop(ids)

    def _in_memory(self, wanted: bytes) -> tuple[int, KVCache | None]:
        shared, entry = self._kept.longest(wanted)
        if not shared or entry is None:
            return 0, None
        self._touch(entry)
        return shared, self._kept.get(entry)

    def _touch(self, ids: bytes) -> None:
        del self._order[ids]
        self._order[ids] = None

    def _drop(self, ids: bytes) -> None:
        del self._order[ids]
        self._num_bytes -= self._kept.pop(ids).num_bytes


def _in_files(
    files: PrefixFiles, wanted: bytes, known: int, new_cache: Callable[[], KVCache]
) -> KVCache | None:
    """The file that has more of it than the `known` ids that memory has."""
    with files.lock:
        while True:
            shared, entry = files.longest(wanted)
            if entry is None or shared <= known:
                return None
            cache = new_cache()
            if files.load(entry, cache):
                return cache
