"""In how many chunks a term occurs, and how long chunks are: exactly what BM25 weighs them by.

Milvus keeps these figures and does not tell them. A small knowledge base is counted here, once,
and followed document by document; in a large one Milvus counts by its index of terms.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from glm_rag.knowledge.milvus.catalogue import Catalogue, files_of
from glm_rag.knowledge.milvus.chunk_rows import encode_term
from glm_rag.knowledge.milvus.client import MOST_ROWS, batched, listed
from glm_rag.knowledge.milvus.rows import DOC_FIELDS, DocRow

# 100 distinct terms of 8 bytes each: at most 16 MB in memory.
_MOST_COUNTED = 20_000
_THREADS = 8
_DOCS_AT_ONCE = 200
# milvus-lite makes its index of words anew for each question from chunks that are not flushed: at
# 5,000 of them a question takes 8 times as long.
_MOST_LOOSE = 200


@dataclass(frozen=True, slots=True)
class Totals:
    """Of a whole knowledge base; `mean_terms` is the mean length of a chunk in terms."""

    num_chunks: int
    mean_terms: float


class Statistics:
    """Counts of one knowledge base, kept until it changes. Any thread may use it."""

    def __init__(self, rows: Catalogue) -> None:
        self._catalogue = rows
        self._lock = threading.Lock()
        self._change: object = None
        self._totals = Totals(0, 0.0)
        self._is_small = True
        self._by_doc: dict[str, np.ndarray] = {}  # of (document, chunks): hashes of their terms
        self._all = np.zeros(0, dtype=np.uint64)
        self._counted: dict[str, int] = {}
        self._num_loose = 0

    def of(
        self, chunks: str, terms: Sequence[str], change: object, where: str
    ) -> tuple[Totals, dict[str, int]]:
        """Totals, and in how many chunks each term occurs; unknown terms are left out.

        Args:
            chunks: the collection. change: what counts is kept while this stays the same; None:
                do not keep. where: what chunks count.
        """
        with self._lock:
            if change is None or change != self._change:
                self._follow(chunks, where)
                self._change = change
            counts = self._counts(chunks, terms, where)
            return self._totals, {term: count for term, count in counts.items() if count}

    def _follow(self, chunks: str, where: str) -> None:
        milvus = self._catalogue.milvus
        self._counted = {}
        rows = milvus.query(
            self._catalogue.docs, 'kind in ["doc", "root"]', DOC_FIELDS, limit=MOST_ROWS
        )
        docs = list(files_of(rows).docs.values())
        total = sum(doc.info.num_chunks for doc in docs)
        terms = sum(doc.num_terms for doc in docs)
        is_all = len(rows) < MOST_ROWS
        self._is_small = is_all and total <= _MOST_COUNTED
        count = total if is_all else milvus.count(chunks, where)
        grown = abs(count - self._totals.num_chunks)
        self._totals = Totals(count, terms / total if total else 0.0)
        if self._is_small:
            self._follow_documents(chunks, docs)
        else:
            self._by_doc, self._all = {}, np.zeros(0, dtype=np.uint64)
            self._flush(chunks, grown)

    def _follow_documents(self, chunks: str, docs: Sequence[DocRow]) -> None:
        wanted = {f"{doc.doc} {doc.info.num_chunks}": doc.doc for doc in docs}
        new = [key for key in wanted if key not in self._by_doc]
        kept = {key: self._by_doc[key] for key in wanted if key in self._by_doc}
        if not new and len(kept) == len(self._by_doc):
            return
        self._flush(chunks, sum(int(key.partition(" ")[2]) for key in new))
        for batch in batched(new, _DOCS_AT_ONCE):
            where = f"doc in {listed(wanted[key] for key in batch)}"
            found: dict[str, list[np.ndarray]] = {}
            for row in self._catalogue.milvus.scan(chunks, where, ["pk", "doc", "terms"]):
                found.setdefault(row["doc"], []).append(_hashes(set(row["terms"].split())))
            empty = np.zeros(0, dtype=np.uint64)
            kept |= {key: np.concatenate([empty, *found.get(wanted[key], ())]) for key in batch}
        self._by_doc = kept
        self._all = np.sort(np.concatenate([np.zeros(0, dtype=np.uint64), *kept.values()]))

    def _flush(self, chunks: str, num_new: int) -> None:
        """Not too often: each time makes another segment. A cluster does so by itself."""
        self._num_loose += num_new
        milvus = self._catalogue.milvus
        if self._num_loose > _MOST_LOOSE and milvus.is_lite:
            milvus.flush(chunks)
            self._num_loose = 0

    def _counts(self, chunks: str, terms: Sequence[str], where: str) -> Mapping[str, int]:
        if self._is_small:
            wanted = _hashes(encode_term(term) for term in terms)
            right = np.searchsorted(self._all, wanted, side="right")
            found = right - np.searchsorted(self._all, wanted, side="left")
            return dict(zip(terms, found.tolist(), strict=True))
        new = [term for term in terms if term not in self._counted]
        if new:
            milvus = self._catalogue.milvus
            tests = [f'({where}) and text_match(terms, "{encode_term(term)}")' for term in new]
            with ThreadPoolExecutor(_THREADS) as pool:
                counts = list(pool.map(lambda test: milvus.count(chunks, test), tests))
            self._counted |= dict(zip(new, counts, strict=True))
        return {term: self._counted[term] for term in terms}


def _hashes(codes: Iterable[str]) -> np.ndarray:
    """Codes as numbers: they are a letter and twelve hexadecimal digits."""
    return np.fromiter((int(code[1:], 16) for code in codes), dtype=np.uint64)
