"""What a retriever needs of a store: candidates with everything their score is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

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
        term_counts: how often each term of the question occurs in the chunk; absent means 0.
        num_terms: length of the chunk in terms.
    """

    document: Document
    language: Language
    cosine: float
    term_counts: Mapping[str, int]
    num_terms: int


@dataclass(frozen=True, slots=True)
class CandidateSet:
    """Candidates and the statistics of the whole store they are weighed by."""

    candidates: tuple[Candidate, ...]
    num_chunks: int
    mean_terms: float
    document_frequency: Mapping[str, int]


class CandidateStore(Protocol):
    """A store that can be searched by vector and by term.

    One with constants of its own has them as `calibration` (a `Calibration`, or None).
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
    ) -> CandidateSet:
        """The `limit` nearest chunks of each language, and those that share the rarest terms."""
