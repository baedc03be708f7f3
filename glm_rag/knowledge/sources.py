"""The sources of a document: its own, copies with the same bytes, members of archives and mails.

A document is stored under one source; other files with the same bytes are rows of `copies`. Where
the document's own file goes away, a copy takes its place: the chunks stay, their keys follow.
Every function works inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import records
from glm_rag.types import chunk_id

# source, size, mtime, added_at
CopyRow = tuple[str, int, float, float]


def resolve(connection: sqlite3.Connection, source: str) -> tuple[int, str] | None:
    """Row id and own source of the document that a source or a copy's source names."""
    row = connection.execute(
        "SELECT id, source FROM documents WHERE source = ?1 UNION ALL "
        "SELECT d.id, d.source FROM copies AS c JOIN documents AS d ON d.id = c.document_id "
        "WHERE c.source = ?1 LIMIT 1",
        (source,),
    ).fetchone()
    return None if row is None else (row[0], row[1])


def remove(connection: sqlite3.Connection, source: str) -> bool:
    """Remove a copy, or a document with its members; false if there is none of that source.

    A document that other files hold too stays, under the source of one of them.
    """
    if connection.execute("DELETE FROM copies WHERE source = ?", (source,)).rowcount:
        return True
    found = resolve(connection, source)
    if found is None:
        return False
    copies = _copies(connection, found[0])
    if copies:
        _promote(connection, found[0], source, copies[0])
        return True
    members = connection.execute(
        "SELECT source FROM documents WHERE container = ?", (source,)
    ).fetchall()
    records.delete_document(connection, source)  # first: a damaged one may hold itself
    for (member,) in members:
        remove(connection, member)
    return True


def make_room(connection: sqlite3.Connection, source: str, sha256: str) -> list[CopyRow]:
    """Take away the older version of a source, but not its members.

    Returns:
        The copies of the new version, for `restore_copies`: those of the old one if the bytes are
        the same. Copies of other bytes keep the old document.
    """
    if connection.execute("DELETE FROM copies WHERE source = ?", (source,)).rowcount:
        return []
    row = connection.execute(
        "SELECT id, sha256 FROM documents WHERE source = ?", (source,)
    ).fetchone()
    if row is None:
        return []
    copies = _copies(connection, row[0])
    if copies and row[1] != sha256:
        _promote(connection, row[0], source, copies[0])
        return []
    records.delete_document(connection, source)
    return copies


def restore_copies(
    connection: sqlite3.Connection, document_id: int, copies: Sequence[CopyRow]
) -> None:
    """Give copies to the new version of their document."""
    connection.executemany(
        "INSERT INTO copies (source, size, mtime, added_at, document_id) VALUES (?, ?, ?, ?, ?)",
        ((*copy, document_id) for copy in copies),
    )


def remove_members(
    connection: sqlite3.Connection, source: str, *, but: Collection[str] = ()
) -> None:
    """Remove what an earlier version of a file held, at any depth, but for some sources."""
    rows = connection.execute(
        "WITH RECURSIVE inside (source) AS (SELECT source FROM documents WHERE container = ? UNION "
        "SELECT d.source FROM documents AS d JOIN inside AS i ON d.container = i.source) "
        "SELECT source FROM inside",
        (source,),
    ).fetchall()
    for (member,) in rows:
        if member not in but:
            remove(connection, member)


def add_copy(
    connection: sqlite3.Connection, source: str, of: str, *, size: int, mtime: float
) -> None:
    """Note that `source` has the bytes of `of`, in place of what `source` was before.

    Raises:
        KnowledgeBaseError: `of` is not here, or is `source` itself.
    """
    found = resolve(connection, of)
    if found is None or found[1] == source:
        reason = "is that file itself" if found else "is not in the knowledge base"
        raise KnowledgeBaseError(f"{source} cannot be kept as a copy of {of}, which {reason}")
    document_id, own = found
    copy = (source, size, mtime, time.time())
    if _goes_with(connection, document_id, source):
        # A mail that now is what was attached to it: only this is left of it.
        _move(connection, document_id, own, _ASIDE, container=None)
        remove(connection, source)
        _promote(connection, document_id, _ASIDE, copy, title_of=own)
    else:
        # Removing may give the document another source, so it is known by its number.
        remove(connection, source)
        restore_copies(connection, document_id, [copy])


# No file's URI.
_ASIDE = "aside:"


def _goes_with(connection: sqlite3.Connection, document_id: int, source: str) -> bool:
    """Whether removing `source` would remove a document that lies inside, at any depth."""
    while not _copies(connection, document_id):
        row = connection.execute(
            "SELECT outer.id, outer.source FROM documents AS d JOIN documents AS outer "
            "ON outer.source = d.container WHERE d.id = ?",
            (document_id,),
        ).fetchone()
        if row is None:
            return False
        document_id, own = row
        if own == source:
            return not _copies(connection, document_id)
    return False


def _copies(connection: sqlite3.Connection, document_id: int) -> list[CopyRow]:
    """Oldest first."""
    return connection.execute(
        "SELECT source, size, mtime, added_at FROM copies WHERE document_id = ? "
        "ORDER BY added_at, source",
        (document_id,),
    ).fetchall()


def _promote(
    connection: sqlite3.Connection,
    document_id: int,
    old: str,
    heir: CopyRow,
    *,
    title_of: str | None = None,
) -> None:
    """Make a copy the document's own source, in place of `old`.

    Args:
        title_of: the source that its title may be the name of; default: `old`.
    """
    source, size, mtime, added_at = heir
    connection.execute("DELETE FROM copies WHERE source = ?", (source,))
    (title,) = connection.execute(
        "SELECT title FROM documents WHERE id = ?", (document_id,)
    ).fetchone()
    connection.execute(
        "UPDATE documents SET title = ?, size = ?, mtime = ?, added_at = ? WHERE id = ?",
        (_title_for(title, title_of or old, source), size, mtime, added_at, document_id),
    )
    _move(connection, document_id, old, source, container=None)


def _move(
    connection: sqlite3.Connection, document_id: int, old: str, new: str, *, container: str | None
) -> None:
    """Give a document another source; its chunks' keys and its members follow."""
    connection.execute(
        "UPDATE documents SET source = ?, container = ? WHERE id = ?",
        (new, container, document_id),
    )
    rows = connection.execute(
        "SELECT start_offset, content_hash, id FROM chunks WHERE document_id = ? AND extra IS NULL",
        (document_id,),
    ).fetchall()
    keys = [(chunk_id(new, start, content_hash), row_id) for start, content_hash, row_id in rows]
    # Somebody may have given a text of their own one of these ids.
    records.delete_chunks(connection, (key for key, _ in keys))
    connection.executemany("UPDATE chunks SET key = ? WHERE id = ?", keys)
    members = connection.execute(
        "SELECT id, source FROM documents WHERE container = ?", (old,)
    ).fetchall()
    for member_id, member in members:
        moved = new + member.removeprefix(old) if member.startswith(old) else member
        _move(connection, member_id, member, moved, container=new)


def _title_for(title: str, old: str, new: str) -> str:
    """The title, where it is the old file's name the new one's."""
    was, now = (PurePosixPath(unquote(source)) for source in (old, new))
    return {was.name: now.name, was.stem: now.stem}.get(title, title)
