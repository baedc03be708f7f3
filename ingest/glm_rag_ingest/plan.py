"""What a run has to do with each file, from what is known of it. No file is opened here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from glm_rag.types import DocumentInfo, IngestFailure
from glm_rag_ingest import loaders
from glm_rag_ingest.discover import FoundFile

Task = Literal["skip", "failed before", "compare", "resplit", "read"]
INSIDE = "#"  # between a file's source and the path of a member inside


@dataclass(frozen=True, slots=True)
class Step:
    """One file and what is to be done about it.

    Attributes:
        task: `compare`: look whether the bytes are those that are known, then do `then`, else
            read; `resplit`: cut the stored text again; `failed before`: skip a known failure.
        known: what the knowledge base has under this source.
    """

    file: FoundFile
    task: Task
    known: DocumentInfo | None = None
    then: Task = "skip"


class Plan:
    """Compares files with what a knowledge base knows.

    Args:
        known: documents by source, copies included.
        failures: of earlier runs.
        recipe: how documents are cut today; see `made_by`.
        retry_failed: read again what failed for good.
        skip_timeouts: take a file that took too long for one that failed for good.
    """

    def __init__(
        self,
        known: Mapping[str, DocumentInfo],
        failures: Iterable[IngestFailure],
        recipe: str,
        *,
        retry_failed: bool = False,
        skip_timeouts: bool = False,
    ) -> None:
        self._known = known
        self._failed = {failed.source: failed for failed in failures}
        self._recipe = recipe
        self._retry_failed = retry_failed
        self._skip_timeouts = skip_timeouts
        # Files with members that deserve another try.
        self._broken_inside = {
            failed.source.partition(INSIDE)[0]
            for failed in self._failed.values()
            if INSIDE in failed.source and self._deserves_a_try(failed)
        }

    def step(self, file: FoundFile) -> Step:
        """What to do with a file."""
        known, failed = self._known.get(file.source), self._failed.get(file.source)
        if failed is not None:
            same = not self._deserves_a_try(failed) and failed.fingerprint == fingerprint(file)
            return Step(file, "failed before" if same else "read", known)
        if known is None or known.size != file.size or file.source in self._broken_inside:
            return Step(file, "read", known)
        task = self._for_same_bytes(known.parser_version)
        if known.mtime == file.mtime or task == "read":
            return Step(file, task, known)
        return Step(file, "compare", known, task)

    def _deserves_a_try(self, failed: IngestFailure) -> bool:
        if self._retry_failed:
            return True
        slow = self._skip_timeouts and failed.error.startswith("timeout:")
        return not failed.permanent and not slow

    def _for_same_bytes(self, parser_version: str) -> Task:
        parser, recipe = parser_of(parser_version), recipe_of(parser_version)
        if not loaders.is_current(parser):
            return "read"
        return "skip" if recipe == self._recipe else "resplit"


def made_by(parser: str, recipe: str) -> str:
    """What is kept as a document's parser version: who read it, and how it was cut."""
    return f"{parser}+{recipe}"


def parser_of(parser_version: str) -> str:
    """The loader's part of what `made_by` gave."""
    return parser_version.partition("+")[0]


def recipe_of(parser_version: str) -> str:
    """The splitter's part of what `made_by` gave."""
    return parser_version.partition("+")[2]


def fingerprint(file: FoundFile) -> str:
    """What a failure is remembered by: other bytes or newer loaders may fare better."""
    return f"{file.size}:{file.mtime!r}:{loaders.versions()}"
