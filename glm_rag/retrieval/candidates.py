"""What a retriever needs of a store: candidates with everything their score is made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from glm_rag.types import Language

if TYPE_CHECKING:
    import numpy as np
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that may answer.

    Attributes:
        cosine: of question and chunk.
        across: inner product of the chunk and the vector that its language was searched by, where
            that is not the question's own.
        term_counts: how often each term of the question occurs in the chunk; absent means 0.
        num_terms: length of the chunk in terms.
        vector: of the chunk, `[dimension]`, where it was asked for.
    """

    document: Document
    language: Language
    cosine: float
    term_counts: Mapping[str, int]
    num_terms: int
    vector: np.ndarray | None = field(default=None, repr=False, compare=False)
    across: float | None = None

    @property
    def near(self) -> float:
        """What the chunk was found by: `across` where it has one."""
        return self.cosine if self.across is None else self.across


@dataclass(frozen=True, slots=True)
class CandidateSet:
    """Candidates and the statistics of the whole store they are weighed by."""

    candidates: tuple[Candidate, ...]
    num_chunks: int
    mean_terms: float
    document_frequency: Mapping[str, int]


class CandidateStore(Protocol):
    """A store that can be searched by vector and by term.

    One with constants of its own has them as `calibration` (a `Calibration`, or None). One that
    can show what stands around a passage is a `GrowingStore`, too. One whose `candidates` know
    `vectors` says so by `takes_vectors = True`; others are asked without, and weighed by
    constants that fit.
    """

    @property
    def embeddings(self) -> Embeddings:
        """What turns a question into a vector."""

    @property
    def embeddings_name(self) -> str:
        """Which calibration belongs to the vectors."""

    def candidates(
        self,
        vector: np.ndarray,
        terms: Sequence[str],
        *,
        limit: int,
        where: Mapping[str, Any] | None = None,
        with_vectors: bool = False,
        vectors: Mapping[Language, np.ndarray] | None = None,
    ) -> CandidateSet:
        """The `limit` nearest chunks of each language, and those that share the rarest terms.

        Args:
            vectors: what chunks of these languages are searched by instead of `vector`, at the
                length they have; chunks get the inner product as `across`.
        """


Reach = Literal["neighbours", "section"]


@runtime_checkable
class GrowingStore(Protocol):
    """A store that knows what stands before and behind a passage."""

    def grow(
        self,
        document: Document,
        reach: Reach,
        *,
        fits: Callable[[str], bool],
        without: Collection[str] = (),
    ) -> Document:
        """The passage with as many chunks around it as `fits` allows, whole ones."""
