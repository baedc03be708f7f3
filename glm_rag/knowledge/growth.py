"""A passage grows to the chunks around it. Works inside the caller's transaction.

The text comes from the stored document, cut at the offsets, so a quote of a grown passage opens
to the same characters as one of a chunk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glm_rag.retrieval.candidates import Reach

if TYPE_CHECKING:
    from langchain_core.documents import Document

# Metadata that a grown passage does not take over from the chunk it grew from.
_OF_ONE_CHUNK = ("content_hash", "chunk_index", "table_header")
# Chunks read on each side of one; a section of more is longer than any window.
MOST_AROUND = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk stands in its document."""

    key: str
    index: int
    start: int
    end: int
    page: int | None
    table_header: str
    section: int | None  # where it begins

    def part(self) -> dict[str, Any]:
        return {"id": self.key, "start": self.start, "end": self.end, "page": self.page}


def grow(
    connection: sqlite3.Connection,
    document: Document,
    reach: Reach,
    *,
    fits: Callable[[str], bool],
    without: Collection[str] = (),
) -> Document:
    """As `KnowledgeBase.grow`."""
    found = _read(connection, document.id)
    if found is None:
        return document
    text, own, around = found
    return grow_in(document, text, own, around, reach, fits, frozenset(without))


def grow_in(
    document: Document,
    text: str,
    own: Place,
    around: Mapping[int, Place],
    reach: Reach,
    fits: Callable[[str], bool],
    without: frozenset[str],
) -> Document:
    """A passage with chunks of its section.

    Args:
        text: of its document. own: its place. around: by index, those of its section, itself too.
    """
    if text[own.start : own.end] != document.page_content:
        return document
    if reach == "section":
        near = around if own.section is not None else {}
    else:
        near = {i: around[i] for i in (own.index - 1, own.index + 1) if i in around}
    chosen = _extend(own, near, text, fits, without)
    return document if len(chosen) == 1 else _joined(document, chosen, text)


def _read(
    connection: sqlite3.Connection, key: str | None
) -> tuple[str, Place, dict[int, Place]] | None:
    """The document's text, a chunk's place in it, and the places around of its section."""
    row = connection.execute(
        "SELECT d.id, d.text, c.chunk_index, c.section_start, c.section_end FROM chunks AS c "
        "JOIN documents AS d ON d.id = c.document_id WHERE c.key = ? AND c.extra IS NULL",
        (key,),
    ).fetchone()
    if row is None:
        return None
    document_id, text, index, *section = row
    rows = connection.execute(
        "SELECT key, chunk_index, start_offset, end_offset, page, table_header, section_start "
        "FROM chunks WHERE document_id = ? AND chunk_index BETWEEN ? AND ? AND extra IS NULL "
        "AND section_start IS ? AND section_end IS ?",
        (document_id, index - MOST_AROUND, index + MOST_AROUND, *section),
    )
    places = {place.index: place for place in (Place(*columns) for columns in rows)}
    return text, places[index], places


def _extend(
    own: Place,
    near: Mapping[int, Place],
    text: str,
    fits: Callable[[str], bool],
    without: frozenset[str],
) -> list[Place]:
    """One chunk behind, one before, and so on, until neither side can go on."""
    chosen = [own]
    open_sides = [1, -1]
    while open_sides:
        for step in tuple(open_sides):
            place = near.get(chosen[-1].index + 1 if step > 0 else chosen[0].index - 1)
            grown = chosen if place is None else sorted([*chosen, place], key=lambda p: p.index)
            if place is None or place.key in without or not fits(_shown(grown, text)):
                open_sides.remove(step)
            else:
                chosen = grown
    return chosen


def _shown(chosen: Sequence[Place], text: str) -> str:
    body = text[chosen[0].start : chosen[-1].end]
    return "\n".join(part for part in (chosen[0].table_header, body) if part)


def _joined(document: Document, chosen: Sequence[Place], text: str) -> Document:
    first, last = chosen[0], chosen[-1]
    metadata = {k: v for k, v in document.metadata.items() if k not in _OF_ONE_CHUNK}
    if first.table_header:
        metadata["table_header"] = first.table_header
    metadata |= {"start": first.start, "end": last.end}
    metadata["parts"] = [place.part() for place in chosen]
    return document.model_copy(
        update={"page_content": text[first.start : last.end], "metadata": metadata}
    )
