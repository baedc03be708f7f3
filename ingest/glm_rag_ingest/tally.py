"""What a run has done so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from glm_rag.types import IngestAction, IngestChange, IngestFailure, IngestReport


class Tally:
    """Counts and lists that become the report.

    Args:
        on_change: called with every change.
    """

    def __init__(self, on_change: Callable[[IngestChange], None] | None = None) -> None:
        self._on_change = on_change
        self._counts: Counter[str] = Counter()
        self._failures: list[IngestFailure] = []
        self._warnings: list[str] = []
        self._changes: list[IngestChange] = []
        self.num_chunks = 0
        self.num_embedded = 0

    def skip(self, *, failed_before: bool = False) -> None:
        """A file has not changed."""
        self._counts["skipped"] += 1
        self._counts["failed before"] += failed_before

    def store(
        self, source: str, outcome: IngestAction, num_chunks: int, how: IngestAction | None = None
    ) -> None:
        """A file is in: `added` or `updated`, and how, where it was not read and cut as usual."""
        self._counts[outcome] += 1
        if how is not None:
            self._counts[how] += 1
        self.num_chunks += 0 if how == "copied" else num_chunks
        self._change(source, how or outcome, num_chunks)

    def fail(self, failed: IngestFailure) -> None:
        """A file, or a member of one, could not be read."""
        self._failures.append(failed)
        self._change(failed.source, "failed")

    def remove(self, source: str, num_documents: int = 1) -> None:
        """A document is gone, with its members."""
        self._counts["deleted"] += num_documents
        self._change(source, "removed")

    def warn(self, warnings: Iterable[str]) -> None:
        """Lines for the user."""
        self._warnings.extend(warnings)

    def report(self, *, seconds: float, interrupted: bool) -> IngestReport:
        """All of it."""
        return IngestReport(
            num_added=self._counts["added"],
            num_updated=self._counts["updated"],
            num_skipped=self._counts["skipped"],
            num_deleted=self._counts["deleted"],
            failures=tuple(sorted(self._failures, key=lambda failed: failed.source)),
            num_chunks=self.num_chunks,
            seconds=seconds,
            warnings=tuple(self._warnings),
            num_failed_before=self._counts["failed before"],
            num_embedded=self.num_embedded,
            num_copies=self._counts["copied"],
            num_resplit=self._counts["resplit"],
            changes=tuple(self._changes),
            interrupted=interrupted,
        )

    def _change(self, source: str, action: IngestAction, num_chunks: int = 0) -> None:
        change = IngestChange(source, action, num_chunks)
        self._changes.append(change)
        if self._on_change is not None:
            self._on_change(change)
