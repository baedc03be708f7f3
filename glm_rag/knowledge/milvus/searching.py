"""Chunks by vector and by word, with what their score is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge.milvus.catalogue import Catalogue, State, is_live
from glm_rag.knowledge.milvus.chunk_rows import CHUNK_FIELDS, StoredRow, encode_term, stored_row
from glm_rag.knowledge.milvus.client import Row, listed, quoted
from glm_rag.knowledge.milvus.expressions import where_clause
from glm_rag.knowledge.milvus.statistics import Statistics, Totals
from glm_rag.knowledge.milvus.writing import busy_versions
from glm_rag.knowledge.search import rarest_terms
from glm_rag.retrieval.candidates import Candidate, CandidateSet
from glm_rag.types import Language

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = (*CHUNK_FIELDS, "embedded", "vector")
# As the FAISS-backed one: Milvus' BM25 has other constants than ours.
_SPARSE_POOL = 5
# A file that was exchanged between a search and the look at its root costs another search.
_ATTEMPTS = 20
_LANGUAGES: tuple[Language, ...] = ("en", "zh")


class Searches:
    """Searches in one knowledge base."""

    def __init__(self, rows: Catalogue, fill: Callable[[list[Row]], list[Row]]) -> None:
        self.catalogue = rows
        self.milvus = rows.milvus
        self._fill = fill
        self._statistics = Statistics(rows)

    # ------------------------------------------------------------ what counts

    def counting(self, state: State, dead: Iterable[str] = ()) -> str:
        """The chunks that count: all but those of versions under way, and of these documents."""
        versions, docs = self.catalogue.dead(state)
        parts = ['pk != ""']
        if versions:
            parts.append(f"version not in {listed(sorted(versions))}")
        if docs | set(dead):
            parts.append(f"doc not in {listed(sorted(docs | set(dead)))}")
        return " and ".join(parts)

    def allowed(self, where: Mapping[str, Any] | None) -> str:
        """A filter, as Milvus has it; empty without one."""
        if where is None:
            return ""
        return where_clause(where, self._originals)

    def _originals(self, test: str) -> list[str]:
        rows = self.milvus.query(
            self.catalogue.docs, f'kind == "copy" and {test}', ["pk", "source"]
        )
        files = self.catalogue.find(row["source"] for row in rows)
        return sorted({copy.of for copy in files.copies.values()})

    # ------------------------------------------------------------ searches

    def nearest(
        self, state: State, vector: np.ndarray, limit: int, where: Mapping[str, Any] | None
    ) -> list[tuple[StoredRow, float, np.ndarray]]:
        """The `limit` nearest chunks, with cosine and vector."""
        rows = self._found(state, vector, where, lambda chunks, test: self._dense(
            chunks, vector, limit, test
        ))  # fmt: skip
        found = [(stored_row(row), np.asarray(row["vector"], dtype=np.float32)) for row in rows]
        scored = [(row, float(own @ vector), own) for row, own in found]
        scored.sort(key=lambda item: (-item[1], item[0].order))
        return scored[:limit]

    def candidates(
        self,
        state: State,
        vector: np.ndarray,
        terms: Sequence[str],
        vectors: Mapping[str, np.ndarray],
        *,
        limit: int,
        where: Mapping[str, Any] | None,
        with_vectors: bool,
    ) -> CandidateSet:
        """As `KnowledgeBase.candidates`."""
        totals, frequencies = self._weights(state, terms)
        rarest = rarest_terms(frequencies)

        def search(chunks: str, test: str) -> list[Row]:
            rows: list[Row] = []
            for language in _LANGUAGES:
                asked = vectors.get(language, vector)
                rows += self._dense(chunks, asked, limit, f'{test} and language == "{language}"')
            return rows + self._sparse(chunks, rarest, _SPARSE_POOL * limit, test)

        rows = [stored_row(row) for row in self._found(state, vector, where, search)]
        rows.sort(key=lambda row: row.order)
        found = tuple(_candidate(row, vector, terms, vectors, with_vectors) for row in rows)
        return CandidateSet(found, totals.num_chunks, totals.mean_terms, frequencies)

    def _weights(self, state: State, terms: Sequence[str]) -> tuple[Totals, dict[str, int]]:
        if state.chunks is None:
            return Totals(0, 0.0), {}
        change = None if state.intents else (state.change, state.chunks)
        return self._statistics.of(state.chunks, terms, change, self.counting(state))

    def _found(
        self,
        state: State,
        vector: np.ndarray,
        where: Mapping[str, Any] | None,
        search: Callable[[str, str], list[Row]],
    ) -> list[Row]:
        """What a search finds of the versions that count when it is over, each chunk once."""
        if state.chunks is None:
            return []
        allowed = self.allowed(where)
        dead: set[str] = set()
        live: list[Row] = []
        for _ in range(_ATTEMPTS):
            if state.chunks is None:
                return []
            _check_length(vector, state)
            test = counted = self.counting(state, dead)
            test = f"({test}) and {allowed}" if allowed else test
            rows = {row["pk"]: row for row in search(state.chunks, test)}
            live, rest = self._sorted(rows.values())
            # What was left out as unfinished may count by now.
            if not rest and (not state.intents or self.counting(state, dead) == counted):
                break
            state = self.catalogue.state()
            # What nobody is writing, and does not count after that, never will.
            busy = busy_versions(state)
            dead |= {r["doc"] for r in self._sorted(rest)[1] if r["version"] not in busy}
        return self._fill(live)

    def _sorted(self, rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
        """The rows that count at this moment, and the others."""
        rows = list(rows)
        roots = self.catalogue.roots({row["root"] for row in rows})
        live = [row for row in rows if is_live(row, roots)]
        return live, [row for row in rows if not is_live(row, roots)]

    def _dense(self, chunks: str, vector: np.ndarray, limit: int, test: str) -> list[Row]:
        return self.milvus.search(
            chunks, "vector", vector, metric="IP", limit=limit, where=test, fields=FIELDS
        )

    def _sparse(self, chunks: str, terms: Sequence[str], limit: int, test: str) -> list[Row]:
        if not terms:
            return []
        asked = " ".join(encode_term(term) for term in terms)
        return self.milvus.search(
            chunks, "sparse", asked, metric="BM25", limit=limit, where=test, fields=FIELDS
        )

    # ------------------------------------------------------------ rows by what they are

    def rows(self, state: State, test: str, *, vectors: bool = False) -> list[StoredRow]:
        """Chunks that count, in the order they were stored."""
        if state.chunks is None:
            return []
        fields = FIELDS if vectors else CHUNK_FIELDS
        rows = list(self.milvus.scan(state.chunks, test, fields))
        roots = self.catalogue.roots({row["root"] for row in rows})
        live = self._fill([row for row in rows if is_live(row, roots)])
        return sorted(map(stored_row, live), key=lambda row: row.order)

    def by_key(
        self, state: State, keys: Sequence[str], *, vectors: bool = False
    ) -> list[StoredRow]:
        """Chunks by their ids."""
        found: list[StoredRow] = []
        for start in range(0, len(keys), 500):
            test = f"key in {listed(keys[start : start + 500])}"
            found += self.rows(state, test, vectors=vectors)
        return found

    def of_document(self, state: State, doc: str, *, vectors: bool = False) -> list[StoredRow]:
        """The chunks of a version of a document."""
        return self.rows(state, f"doc == {quoted(doc)}", vectors=vectors)


def _check_length(vector: np.ndarray, state: State) -> None:
    if len(vector) != state.dimension:
        raise KnowledgeBaseError(
            f"the question's vector has {len(vector)} numbers, those of the chunks have "
            f"{state.dimension} numbers: ask with the embedder they were made with"
        )


def _candidate(
    row: StoredRow,
    vector: np.ndarray,
    terms: Sequence[str],
    vectors: Mapping[str, np.ndarray],
    with_vectors: bool,
) -> Candidate:
    own = np.asarray(row.row["vector"], dtype=np.float32)
    other = vectors.get(row.language)
    return Candidate(
        row.passage(),
        row.language,
        float(own @ vector),
        row.count(terms),
        row.row["num_terms"],
        own if with_vectors else None,
        None if other is None else float(own @ other),
    )
