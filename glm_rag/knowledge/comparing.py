"""How near chunks are to a question, each language by the vector that it is searched by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glm_rag.knowledge.index import VectorIndex

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Compared:
    """By row id.

    Attributes:
        cosine: to the question. across: to the vector of their language, where that is another.
    """

    cosine: dict[int, float] = field(default_factory=dict)
    across: dict[int, float] = field(default_factory=dict)


def compare_nearest(
    index: VectorIndex,
    vector: np.ndarray,
    vectors: Mapping[str, np.ndarray],
    limit: int,
    allowed: np.ndarray | None,
) -> Compared:
    """The `limit` nearest chunks of each language, by `vectors` or else by `vector`."""
    found = Compared()
    for language in index.languages:
        asked = vectors.get(language, vector)
        nearest = index.search(asked, limit, language=language, allowed=allowed)
        (found.across if language in vectors else found.cosine).update(nearest)
    compare_too(found, index, vector, found.across)
    return found


def compare_too(
    found: Compared, index: VectorIndex, vector: np.ndarray, ids: Iterable[int]
) -> None:
    """Add the cosines to the question of chunks that have none yet."""
    found.cosine.update(
        (row_id, float(index.vector(row_id) @ vector))
        for row_id in [row_id for row_id in ids if row_id not in found.cosine]
    )


def compare_across(
    found: Compared,
    index: VectorIndex,
    vectors: Mapping[str, np.ndarray],
    languages: Iterable[tuple[int, str]],
) -> None:
    """Add what chunks (id, language) of a language with a vector of its own still lack."""
    found.across.update(
        (row_id, float(index.vector(row_id) @ vectors[language]))
        for row_id, language in languages
        if language in vectors and row_id not in found.across
    )
