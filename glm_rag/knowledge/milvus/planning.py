"""What a write changes: the rules of copies and members are those of `sources`, run on a few rows.

The documents that may be concerned are laid into a SQLite database in memory, without their
texts; the operation that the FAISS library runs is run on it; what differs then is the change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

from glm_rag.knowledge import records, sources
from glm_rag.knowledge.milvus.catalogue import CopyRow, Files
from glm_rag.knowledge.milvus.rows import DocRow
from glm_rag.knowledge.milvus.tables import hashed
from glm_rag.knowledge.portable import NewDocument
from glm_rag.knowledge.schema import MIGRATIONS
from glm_rag.types import DocumentInfo, ExtractedDocument

_LAST = ExtractedDocument("last:", "", "", "", 0, 0.0, "", "")  # no file's URI

Operation = Callable[[sqlite3.Connection], None]


@dataclass(frozen=True, slots=True)
class Moved:
    """A stored document that gets another source, or another version of its file."""

    doc: DocRow
    info: DocumentInfo  # what is known of it then


@dataclass(slots=True)
class Change:
    """What is to be written.

    Attributes:
        new: documents by the root they are put with. moved: likewise.
        dead: documents that go. copies: to be written. lost: copies that go.
    """

    new: dict[str, list[NewDocument]] = field(default_factory=dict)
    moved: dict[str, list[Moved]] = field(default_factory=dict)
    dead: list[DocRow] = field(default_factory=list)
    copies: list[CopyRow] = field(default_factory=list)
    lost: list[CopyRow] = field(default_factory=list)

    @property
    def leaving(self) -> list[DocRow]:
        """Stored versions of documents that count no more."""
        return [*self.dead, *(item.doc for items in self.moved.values() for item in items)]

    @property
    def is_empty(self) -> bool:
        """Nothing is to be done."""
        return not (self.new or self.moved or self.dead or self.copies or self.lost)


def plan(
    files: Files,
    operation: Operation,
    new: Mapping[str, NewDocument] | None = None,
    root_of: Callable[[str], str] = hashed,
) -> Change:
    """What an operation does to these files.

    Args:
        new: the documents that it inserts, by source. root_of: from such a source to its root.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for script in MIGRATIONS:
            connection.executescript(script)
        # A full-text table refuses to forget what it was never told.
        connection.executescript(
            "DROP TABLE chunk_terms; CREATE TABLE chunk_terms (chunk_terms, rowid, terms)"
        )
        known = _laid_out(connection, files)
        operation(connection)
        return _difference(connection, files, known, new or {}, root_of)


def placeholder(document: ExtractedDocument) -> ExtractedDocument:
    """A document without its text, for an operation."""
    return replace(document, text="", pages=(), warnings=())


def _laid_out(connection: sqlite3.Connection, files: Files) -> dict[int, DocRow]:
    known: dict[int, DocRow] = {}
    for doc in sorted(files.docs.values(), key=lambda doc: doc.order):
        info = doc.info
        document = ExtractedDocument(
            info.source, info.title, "", info.sha256, info.size, info.mtime, info.media_type,
            info.parser_version, container=info.container,
        )  # fmt: skip
        row_id = records.insert_document(connection, document, info.language)
        connection.execute(
            "UPDATE documents SET added_at = ? WHERE id = ?", (info.added_at, row_id)
        )
        copies = files.copies_of(info.source)
        rows = [(copy.source, copy.size, copy.mtime, copy.added_at) for copy in copies]
        sources.restore_copies(connection, row_id, rows)
        known[row_id] = doc
    # SQLite gives the highest number again when its row is gone.
    records.insert_document(connection, _LAST, "en")
    return known


def _difference(
    connection: sqlite3.Connection,
    files: Files,
    known: Mapping[int, DocRow],
    new: Mapping[str, NewDocument],
    root_of: Callable[[str], str],
) -> Change:
    rows = connection.execute(
        "SELECT id, source, coalesce(container, ''), title, size, mtime, added_at FROM documents "
        "WHERE source <> ?",
        (_LAST.source,),
    ).fetchall()
    change = Change()
    left = {row[0] for row in rows}
    change.dead = [doc for row_id, doc in known.items() if row_id not in left]
    kept: list[Moved] = []
    moved: list[Moved] = []
    for row_id, source, container, title, size, mtime, added_at in rows:
        doc = known.get(row_id)
        if doc is None:
            change.new.setdefault(root_of(source), []).append(new[source])
            continue
        info = replace(doc.info, source=source, container=container, title=title, size=size,
                       mtime=mtime, added_at=added_at)  # fmt: skip
        (kept if info == doc.info else moved).append(Moved(doc, info))
    _sort_moved(change, kept, moved)
    _compare_copies(connection, files, change)
    return change


def _sort_moved(change: Change, kept: list[Moved], moved: list[Moved]) -> None:
    """Each with the outermost one that moves; what stays in a file with a new version is rewritten
    with it."""
    containers = {item.info.source: item.info.container for item in moved}
    for item in moved:
        top = item.info.source
        while containers[top] in containers:
            top = containers[top]
        change.moved.setdefault(hashed(top), []).append(item)
    rewritten = {*change.new, *change.moved}
    for item in kept:
        if item.doc.root in rewritten:
            change.moved.setdefault(item.doc.root, []).append(item)


def _compare_copies(connection: sqlite3.Connection, files: Files, change: Change) -> None:
    rows: Iterable[tuple[str, str, str, int, float, float]] = connection.execute(
        "SELECT c.source, d.source, d.sha256, c.size, c.mtime, c.added_at FROM copies AS c "
        "JOIN documents AS d ON d.id = c.document_id"
    ).fetchall()
    now = {row[0]: CopyRow(*row) for row in rows}
    change.copies = [copy for source, copy in now.items() if files.copies.get(source) != copy]
    change.lost = [copy for source, copy in files.copies.items() if source not in now]
