"""Which of many id sequences shares the longest beginning with a given one."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")

_ID_BYTES = 4


def id_key(token_ids: Sequence[int] | np.ndarray) -> bytes:
    """Ids as bytes that sort like the ids do."""
    return np.asarray(token_ids, dtype=">u4").tobytes()


def common_length(one: bytes, other: bytes) -> int:
    """Ids that two keys have in common at their beginning."""
    size = min(len(one), len(other))
    a, b = (np.frombuffer(key, dtype=">u4", count=size // _ID_BYTES) for key in (one, other))
    different = np.flatnonzero(a != b)
    return int(different[0]) if len(different) else len(a)


class PrefixIndex(Generic[T]):
    """Values by id sequence, in sorted order: the sequence with the longest common beginning
    stands next to where the wanted one would, so a search compares two however many there are.
    """

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._values: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: bytes) -> bool:
        return key in self._values

    def items(self) -> Iterator[tuple[bytes, T]]:
        """All keys with their values."""
        yield from self._values.items()

    def get(self, key: bytes) -> T:
        """The value of a sequence that is there."""
        return self._values[key]

    def put(self, key: bytes, value: T) -> None:
        """Add a sequence, or replace its value."""
        if key not in self._values:
            insort(self._keys, key)
        self._values[key] = value

    def pop(self, key: bytes) -> T:
        """Remove a sequence that is there."""
        del self._keys[bisect_left(self._keys, key)]
        return self._values.pop(key)

    def longest(self, key: bytes) -> tuple[int, bytes | None]:
        """Most ids that a kept sequence has in common with `key`, and that sequence."""
        place = bisect_left(self._keys, key)
        near = self._keys[max(place - 1, 0) : place + 1]
        found = [(common_length(key, other), other) for other in near]
        return max(found, default=(0, None))

    def beginnings(self, key: bytes) -> list[bytes]:
        """Other kept sequences that `key` begins with."""
        return [other for other in self._keys if key.startswith(other) and other != key]
