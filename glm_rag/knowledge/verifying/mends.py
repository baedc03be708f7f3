"""What mends what was found, as commands."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from glm_rag.types import VerifyFinding

_MOST_NESTED = 10  # a damaged file may hold a circle

Findings = Iterator[VerifyFinding]


@dataclass(frozen=True, slots=True)
class Mends:
    """What mends what, as commands for one knowledge base."""

    name: str
    connection: sqlite3.Connection

    @property
    def rebuild(self) -> str:
        return f"glm-rag kb rebuild {self.name}"

    @property
    def embed(self) -> str:
        return f"glm-rag kb rebuild {self.name} --embed"

    @property
    def restore(self) -> str:
        return "restore the folder from a backup or an export"

    def ingest(self, source: str) -> str:
        files = self._files_of(source)
        removed = (f'glm-rag kb remove "{file}" --kb {self.name}' for file in files)
        what = "that file" if len(files) == 1 else "these files"
        return f"{' && '.join(removed)}, then ingest {what} again"

    def _files_of(self, source: str) -> list[str]:
        """What must go for a document to be read anew: the file it is inside of, all its copies.

        A member that was removed comes back with its file only, and of a file that has copies one
        takes over the document.
        """
        for _ in range(_MOST_NESTED):
            row = self.connection.execute(
                "SELECT outside.source FROM documents AS d JOIN documents AS outside "
                "ON outside.source = d.container WHERE d.source = ?",
                (source,),
            ).fetchone()
            if row is None:
                break
            (source,) = row
        copies = self.connection.execute(
            "SELECT c.source FROM copies AS c JOIN documents AS d ON d.id = c.document_id "
            "WHERE d.source = ? ORDER BY c.source",
            (source,),
        )
        return list(dict.fromkeys([source, *(copy for (copy,) in copies)]))
