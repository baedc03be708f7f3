"""Which passages enter the context window: few, whole, best first, counted exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.documents import Document

from glm_rag.text import fold, sentence_spans
from glm_rag.types import PackedContext, Passage, ScoredDocument

Render = Callable[[Sequence[Passage]], str]

# Metadata that a merged passage does not take over from its best chunk.
_OF_ONE_CHUNK = frozenset({"content_hash", "chunk_index", "table_header"})


@dataclass(frozen=True, slots=True)
class _Candidate:
    document: Document
    score: float | None


def plain_block(passages: Sequence[Passage]) -> str:
    """Passages as numbered paragraphs: `[1] text`, table headers above their rows."""
    shown = ("\n".join(filter(None, (p.table_header, p.text))) for p in passages)
    return "\n\n".join(f"[{p.index}] {text}" for p, text in zip(passages, shown, strict=True))


def pack(
    documents: Sequence[ScoredDocument | Document],
    *,
    count_tokens: Callable[[str], int],
    budget: int,
    max_passages: int = 4,
    relative_score: float = 0.95,
    render: Render = plain_block,
    shown: Sequence[Passage] = (),
) -> PackedContext:
    """Choose the passages that a question deserves and that fit.

    Passages enter whole, best first; one that does not fit is left out and the next one tried.
    Behind the best one, those of the same document stand in its order.
    Overlapping or touching chunks of one document become one passage, repeated content counts
    once. Only when nothing fits whole is the best passage cut, at a sentence end if possible,
    and flagged `truncated`.

    Args:
        documents: chunks with scores (`ScoredDocument`, or `score` in the metadata). Without
            scores the given order is the ranking and `relative_score` has no effect.
        count_tokens: the language model's own count of a text.
        budget: most tokens of the rendered block.
        max_passages: most passages, after merging.
        relative_score: a passage needs this share of the best one's score.
        render: the block exactly as the prompt will hold it, headers included.
        shown: passages that the conversation holds already; they count as chosen where they
            are found again, and are not repeated.

    Returns:
        New passages, numbered from 1 or behind those shown. A merged passage keeps the id and
        metadata of its best chunk, with `start` and `end` widened, the `table_header` of its
        first and every chunk's own `id`, `start`, `end` and `page` under `parts`. `num_dropped`
        counts distinct chunks that did not enter.
    """
    candidates = _distinct(_ranked(documents))
    eligible = _above(candidates, relative_score)
    new = [d for d in eligible if not any(_shows(passage, d) for passage in shown)]
    num_known = len(eligible) - len(new)
    first = 1 + max((passage.index for passage in shown), default=0)
    chosen: list[Document] = []
    num_used = num_known
    for document in new:
        grown = _insert(chosen, document)
        most = max_passages - num_known
        if len(grown) > most or count_tokens(render(_numbered(grown, first))) > budget:
            continue
        chosen = grown
        num_used += 1
    passages = _numbered(chosen, first)
    if eligible and not num_used:
        passages = _cut(eligible[0], first, lambda cut: count_tokens(render([cut])) <= budget)
        num_used = len(passages)
    return PackedContext(
        passages=tuple(
            replace(passage, num_tokens=count_tokens(render([passage]))) for passage in passages
        ),
        num_tokens=count_tokens(render(passages)) if passages else 0,
        budget=budget,
        num_dropped=len(candidates) - num_used,
    )


def _ranked(documents: Sequence[ScoredDocument | Document]) -> list[_Candidate]:
    candidates = [_candidate(document) for document in documents]
    if any(candidate.score is None for candidate in candidates):
        return [replace(candidate, score=None) for candidate in candidates]
    return sorted(candidates, key=lambda candidate: -(candidate.score or 0.0))


def _candidate(item: ScoredDocument | Document) -> _Candidate:
    if isinstance(item, ScoredDocument):
        return _Candidate(item.document, item.score)
    return _Candidate(item, item.metadata.get("score"))


def _distinct(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Drop empty and repeated content; case, width and white space do not make it new."""
    seen: dict[str, _Candidate] = {}
    for candidate in candidates:
        document = candidate.document
        key = "".join(fold(document.page_content).split())
        if key:  # the same figures below another header say something else
            header = "".join(fold(_table_header(document)).split())
            seen.setdefault(f"{header}\n{key}", candidate)
    return list(seen.values())


def _above(candidates: Sequence[_Candidate], relative_score: float) -> list[Document]:
    best = candidates[0].score if candidates else None
    # A share of the best score means nothing for scores around or below zero.
    if best is None or best <= 0:
        return [candidate.document for candidate in candidates]
    floor = relative_score * best
    return [c.document for c in candidates if c.score is not None and c.score >= floor]


def _shows(passage: Passage, document: Document) -> bool:
    header = _table_header(document)
    return document.page_content in passage.text and (
        header in passage.text or header == passage.table_header
    )


def _numbered(documents: Sequence[Document], first: int) -> list[Passage]:
    return [
        Passage(index=index, document=document, text=document.page_content, num_tokens=0)
        for index, document in enumerate(_in_order(documents), start=first)
    ]


def _in_order(documents: Sequence[Document]) -> list[Document]:
    """The best stays first, so that a kept beginning of the prompt serves again.

    Behind it, those of one document trade places until they stand as in the document.
    """
    found: dict[Any, list[tuple[tuple[int, int], int]]] = {}
    for place, document in enumerate(documents[1:], start=1):
        source, span = document.metadata.get("source"), _span(document)
        if source is not None and span is not None:
            found.setdefault(source, []).append((span, place))
    ordered = list(documents)
    for own in found.values():
        places = sorted(place for _, place in own)
        for place, (_, origin) in zip(places, sorted(own), strict=True):
            ordered[place] = documents[origin]
    return ordered


# ---------------------------------------------------------------- neighbours


def _insert(chosen: Sequence[Document], document: Document) -> list[Document]:
    """`chosen` with `document` merged into the passages it touches, else at the end."""
    grown: list[Document] = []
    merged = document
    place: int | None = None
    for other in chosen:
        # The better-ranked of the two lends its id: `other` until one was found, then `merged`.
        union = _union(other, merged) if place is None else _union(merged, other)
        if union is None:
            grown.append(other)
            continue
        merged = union
        if place is None:
            place = len(grown)
    grown.insert(len(grown) if place is None else place, merged)
    return grown


def _union(best: Document, other: Document) -> Document | None:
    """One document for two chunks that overlap or touch; None where they do not."""
    span, other_span = _span(best), _span(other)
    if span is None or other_span is None or not _same_source(best, other):
        return None
    first, later = (best, other) if span <= other_span else (other, best)
    (start, first_end), (later_start, later_end) = sorted([span, other_span])
    shared = first_end - later_start
    head, tail = first.page_content, later.page_content
    if shared == -1 and _begins_row(later):
        head, shared = f"{head}\n", 0
    if shared < 0:
        return None
    overlap = head[len(head) - shared :] if shared else ""
    # Offsets that do not agree with the text belong to something else: keep them apart.
    if not (overlap.startswith(tail) or tail.startswith(overlap)):
        return None
    header = _table_header(first)
    metadata = {
        **{k: v for k, v in best.metadata.items() if k not in _OF_ONE_CHUNK},
        **({"table_header": header} if header else {}),
        "start": start,
        "end": max(first_end, later_end),
        "parts": sorted([*_parts(best), *_parts(other)], key=lambda part: part["start"]),
    }
    return Document(id=best.id, page_content=head + tail[shared:], metadata=metadata)


def _begins_row(document: Document) -> bool:
    """Whether a chunk begins with a later row of a table, which only a line end can be before."""
    return bool(_table_header(document)) and document.page_content.startswith("|")


def _table_header(document: Document) -> str:
    return str(document.metadata.get("table_header") or "")


def _span(document: Document) -> tuple[int, int] | None:
    start, end = document.metadata.get("start"), document.metadata.get("end")
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    return (start, end) if end - start == len(document.page_content) else None


def _same_source(one: Document, other: Document) -> bool:
    source = one.metadata.get("source")
    return source is not None and source == other.metadata.get("source")


def _parts(document: Document) -> list[dict[str, Any]]:
    parts = document.metadata.get("parts")
    if parts:
        return list(parts)
    keys = ("start", "end", "page")
    return [{"id": document.id, **{key: document.metadata.get(key) for key in keys}}]


# ---------------------------------------------------------------- cutting


def _cut(document: Document, index: int, fits: Callable[[Passage], bool]) -> list[Passage]:
    """The longest beginning of `document` that fits, as a list of one or no passage."""
    text = document.page_content
    sentence_ends = [end for _, end in sentence_spans(text)]
    for ends in (sentence_ends, range(1, len(text))):
        best = _longest(document, index, ends, fits)
        if best is not None:
            return [best]
    return []


def _longest(
    document: Document, index: int, ends: Sequence[int], fits: Callable[[Passage], bool]
) -> Passage | None:
    best: Passage | None = None
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        text = document.page_content[: ends[middle]]
        passage = Passage(index, document=document, text=text, num_tokens=0, truncated=True)
        if fits(passage):
            best, low = passage, middle + 1
        else:
            high = middle
    return best
