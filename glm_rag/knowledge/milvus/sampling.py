"""Some of the passages: by chance, or the most central first.

Every chunk has a `spot`, a number by chance, so that a sample of a large collection is a range.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from glm_rag.knowledge.milvus.catalogue import State, is_live
from glm_rag.knowledge.milvus.chunk_rows import StoredRow
from glm_rag.knowledge.milvus.client import Row, batched, listed
from glm_rag.knowledge.milvus.searching import Searches
from glm_rag.knowledge.sampling import Sketch
from glm_rag.types import Language

_SPOTS = 1 << 32
_MARGIN = 1.3  # a range of spots holds a little more or less than its share
_MOST_RANKED = 50_000
_BEGINNING = 160  # characters
_LANGUAGES: tuple[Language, ...] = ("en", "zh")


def sample_keys(
    searches: Searches, state: State, limit: int, per_document: int, seed: int
) -> list[str]:
    """Primary keys of chunks by chance: every document's first pick, then every second one."""
    picks: dict[str, list[tuple[bytes, str]]] = {}
    for row in _some(searches, state, _MOST_RANKED, "", ["spot"]):
        picks.setdefault(row["doc"], []).append((_rank(seed, row["pk"]), row["pk"]))
    chosen = [
        (turn, _rank(seed, doc), pk)
        for doc, found in picks.items()
        for turn, (_, pk) in enumerate(sorted(found)[:per_document])
    ]
    return [pk for _, _, pk in sorted(chosen)[:limit]]


def central_keys(searches: Searches, state: State) -> list[str]:
    """Primary keys of all chunks, those with the highest mean cosine to the others of their
    language first; languages take turns. Reads every vector twice and keeps none."""
    places: list[tuple[float, str]] = []
    for language in _LANGUAGES:
        total: np.ndarray | float = 0.0
        for row in _all(searches, state, language):
            total = total + np.asarray(row["vector"], dtype=np.float64)
        scored = [
            (-float(np.asarray(row["vector"]) @ total), row["pk"])
            for row in _all(searches, state, language)
        ]
        ordered = [pk for _, pk in sorted(scored)]
        places += [((rank + 0.5) / len(ordered), pk) for rank, pk in enumerate(ordered)]
    return [pk for _, pk in sorted(places)]


def sample_vectors(searches: Searches, state: State, limit: int) -> dict[Language, np.ndarray]:
    """Vectors of chunks by chance from those of each language, `[<= limit, D]`."""
    found = {}
    for language in _LANGUAGES:
        test = f'language == "{language}"'
        rows = _some(searches, state, limit, test, ["spot", "vector"])
        vectors = [np.asarray(row["vector"], dtype=np.float32) for row in rows]
        if vectors:
            found[language] = np.stack(vectors)
    return found


def sketch(searches: Searches, state: State, limit: int) -> tuple[list[Sketch], np.ndarray]:
    """At most `limit` passages by chance, in brief, and `[N, D]` vectors."""
    keys = [row["pk"] for row in _some(searches, state, limit, "", ["spot"])]
    rows = by_primary_key(searches, state, keys, vectors=True)
    sketches = [
        Sketch(
            row.row["key"],
            row.row["source"],
            row.row["title"],
            row.known["page"],
            row.document.page_content[:_BEGINNING],
        )
        for row in rows
    ]
    vectors = [np.asarray(row.row["vector"], dtype=np.float32) for row in rows]
    return sketches, np.stack(vectors) if vectors else np.zeros((0, 1), dtype=np.float32)


def by_primary_key(
    searches: Searches, state: State, keys: Sequence[str], *, vectors: bool = False
) -> list[StoredRow]:
    """Chunks in the order they were stored."""
    found: list[StoredRow] = []
    for batch in batched(keys, 500):
        found += searches.rows(state, f"pk in {listed(batch)}", vectors=vectors)
    return sorted(found, key=lambda row: row.order)


def _some(
    searches: Searches, state: State, limit: int, test: str, fields: Sequence[str]
) -> list[Row]:
    """At most `limit` rows by chance, always the same ones."""
    if state.chunks is None:
        return []
    counting = searches.counting(state)
    where = f"{counting} and {test}" if test else counting
    count = searches.milvus.count(state.chunks, where)
    if count > limit:
        most = min(_SPOTS, int(_SPOTS * _MARGIN * (limit + 10) / count))
        where += f" and spot < {most}"
    rows = list(_live(searches, state.chunks, where, fields))
    return sorted(rows, key=lambda row: row["spot"])[:limit]


def _all(searches: Searches, state: State, language: Language) -> Iterator[Row]:
    if state.chunks is None:
        return iter(())
    where = f'{searches.counting(state)} and language == "{language}"'
    return _live(searches, state.chunks, where, ["vector"])


def _live(searches: Searches, chunks: str, where: str, fields: Sequence[str]) -> Iterator[Row]:
    names = ["pk", "doc", "root", "version", *fields]
    for batch in _pages(searches.milvus.scan(chunks, where, names)):
        roots = searches.catalogue.roots({row["root"] for row in batch})
        yield from (row for row in batch if is_live(row, roots))


def _pages(rows: Iterator[Row]) -> Iterator[list[Row]]:
    page: list[Row] = []
    for row in rows:
        page.append(row)
        if len(page) == 1_000:
            yield page
            page = []
    if page:
        yield page


def _rank(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
