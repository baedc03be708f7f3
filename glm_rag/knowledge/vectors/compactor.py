"""When snapshots are written: behind a long ingest, and when a writer closes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from glm_rag.knowledge.database import Database
from glm_rag.knowledge.vectors import compaction, rows, snapshots
from glm_rag.knowledge.vectors.kinds import IndexLimits

logger = logging.getLogger(__name__)

# After a look whether anything is due, so many new ids and deletions until the next.
_LOOK_AGAIN = 1_000


class Compactor:
    """Writes the snapshots of one database, one after the other. Any thread may use it.

    Failing costs nothing but time, since the vectors are in SQLite: it is logged, not raised.
    """

    def __init__(self, database: Database, limits: IndexLimits) -> None:
        self._database = database
        self._limits = limits
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._looked_at = 0

    def start_if_due(self) -> None:
        """Compact in the background what has changed enough; most calls only read two numbers."""
        if self._is_running() or not self._has_moved():
            return
        due = self._due()
        with self._lock:
            if due and not self._is_running():
                # Not a daemon: an interpreter that ends waits, and FAISS is not torn apart.
                thread = threading.Thread(
                    target=self.compact, args=(due,), name="glm-rag compaction"
                )
                with self._logged():
                    thread.start()
                    self._thread = thread

    def finish(self, refused: Iterable[str]) -> None:
        """Wait for what runs, then compact what is still due; anew where a file was refused."""
        self._join()
        self.compact(refused, anew=True)
        with self._logged():
            self.compact(self._due())
            self._trim_log()
            snapshots.sweep(self._database)

    def rebuild(self) -> None:
        """Write every snapshot anew from the vectors in SQLite."""
        self._join()
        with self._database.read() as connection:
            languages = sorted(rows.language_counts(connection))
        self.compact(languages, anew=True)

    def compact(self, languages: Iterable[str], *, anew: bool = False) -> None:
        """Write a snapshot of each language."""
        for language in languages:
            with self._logged():
                compaction.compact(self._database.folder, language, self._limits, anew=anew)

    @contextmanager
    def _logged(self) -> Iterator[None]:
        try:
            yield
        # FAISS raises RuntimeError and MemoryError, as does a system that has no thread left.
        except Exception as error:  # noqa: BLE001
            where = self._database.folder / snapshots.FOLDER
            reason = str(error) or type(error).__name__
            logger.warning("no snapshot of the index in %s: %s", where, reason)

    def _is_running(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _join(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _has_moved(self) -> bool:
        with self._database.read() as connection:
            now = rows.last_number(connection, "chunks") + rows.last_number(connection, "deletions")
        if now - self._looked_at < min(_LOOK_AGAIN, self._limits.min_changes):
            return False
        self._looked_at = now
        return True

    def _due(self) -> list[str]:
        with self._database.read() as connection:
            return compaction.due_languages(connection, self._database.folder, self._limits)

    def _trim_log(self) -> None:
        """A small knowledge base has no snapshot that would say where the log may be cut."""
        with self._database.read() as connection:
            length = rows.last_number(connection, "deletions") - rows.first_deletion(connection)
            count = sum(rows.language_counts(connection).values())
        if length > self._limits.changes(count):
            with self._database.write(changes_chunks=False) as connection:
                snapshots.forget_deletions(connection)
