"""Sets of ids as bits, the way FAISS's bitmap selector reads them: eight ids a byte."""

from __future__ import annotations

import numpy as np


def bitmap_of(ids: np.ndarray, size: int) -> np.ndarray:
    """Bits of ids below `size`; larger ones are left out."""
    bits = np.zeros(size, dtype=bool)
    bits[ids[ids < size]] = True
    return np.packbits(bits, bitorder="little")


def full_bitmap(size: int) -> np.ndarray:
    """Every id below `size`."""
    return np.packbits(np.ones(size, dtype=bool), bitorder="little")


def without(bits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """A copy without these ids; those beyond its end are not in it anyway."""
    ids = ids[ids < 8 * len(bits)]
    left = bits.copy()
    np.bitwise_and.at(left, ids >> 3, ~(1 << (ids & 7)).astype(np.uint8))
    return left
