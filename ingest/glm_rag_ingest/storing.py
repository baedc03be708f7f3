"""The end of a file's way: into the knowledge base, or among the failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from glm_rag.errors import DocumentError
from glm_rag.types import DocumentInfo, IngestAction, IngestFailure
from glm_rag_ingest.discover import Discovery, FoundFile
from glm_rag_ingest.embedding import stack
from glm_rag_ingest.jobs import Job
from glm_rag_ingest.loaders.base import Loaded
from glm_rag_ingest.plan import INSIDE, fingerprint
from glm_rag_ingest.prune import sources_below
from glm_rag_ingest.reading import Reading
from glm_rag_ingest.tally import Tally

if TYPE_CHECKING:
    from glm_rag.knowledge.base import KnowledgeBase

_MOST_ERROR = 300  # characters
_OLD_STAYS = "; the version ingested before is still searched"


class Store:
    """Writes results and counts them.

    Args:
        kb: None where there is no knowledge base yet, in a dry run.
        known: documents by source at the beginning of the run.
        failed: failures by source at the beginning of the run.
        prune: remove earlier versions of files that cannot be read any more.
        dry_run: count only.
    """

    def __init__(
        self,
        kb: KnowledgeBase | None,
        tally: Tally,
        known: Mapping[str, DocumentInfo],
        failed: Mapping[str, IngestFailure],
        *,
        prune: bool,
        dry_run: bool,
    ) -> None:
        self.kb = kb
        self._writes = None if dry_run else kb
        self._tally = tally
        self._known = known
        self._failed = failed
        self._prune = prune
        self._dry_run_contents: set[tuple[str, str, str]] = set()

    def sources(self) -> list[str]:
        """Files that are known, with or without success; not their members."""
        return [source for source in {**self._known, **self._failed} if INSIDE not in source]

    def note_discovery(self, found: Discovery) -> None:
        """Record what may not be looked at below the named paths, and forget what now may."""
        if self._writes is None:
            return
        current = {failed.source: failed for failed in found.failures}
        before = [s for s, failed in self._failed.items() if failed.stage == "discover"]
        for source, _ in sources_below(found.roots, before):
            if source not in current:
                self._writes.clear_failure(source)
        for source, _ in sources_below(found.roots, current):
            self._writes.record_failure(current[source])

    def stored(self, source: str) -> Loaded:
        """The documents kept of a file, as if they had just been read."""
        assert self.kb is not None  # only known files are cut again
        inside = tuple(
            failed for name, failed in self._failed.items() if name.startswith(f"{source}{INSIDE}")
        )
        return Loaded(tuple(self.kb.get_extracted(source)), inside)

    def touch(self, reading: Reading) -> None:
        """A file has another time but the same bytes."""
        self._tally.skip()
        file = reading.step.file
        if self._writes is not None and reading.is_settled:
            self._writes.touch(file.source, size=file.size, mtime=file.mtime)

    def copy(self, job: Job) -> bool:
        """Note a file as a copy of one with the same bytes, read and cut alike; false if none."""
        own = job.documents[0]
        if job.content in self._dry_run_contents:
            self._count(job, self._outcome(job), "copied")
            return True
        kb = self.kb
        if kb is None:
            return False
        found = kb.find_by_content(own.sha256, suffix=job.file.path.suffix)
        if found is None or found.parser_version != own.parser_version:
            return False
        if found.source == own.source or own.source.startswith(f"{found.source}{INSIDE}"):
            return False
        if self._writes is not None:
            self._writes.add_copy(own.source, of=found.source, size=own.size, mtime=own.mtime)
        self._count(job, self._outcome(job), "copied")
        return True

    def put(self, job: Job) -> None:
        """Store a file with its members."""
        outcome: IngestAction = self._outcome(job)
        if self._writes is not None:
            outcome = self._writes.put_documents(job.items(), job.failures)
        else:
            self._dry_run_contents.add(job.content)
        self._count(job, outcome, "resplit" if job.reading.resplit else None)
        if not job.reading.resplit:
            self._tally.warn(job.warnings())
            for failed in job.failures:
                self._tally.fail(failed)

    def keep(self, job: Job, places: list[int]) -> None:
        """Keep vectors of a file that is not finished."""
        texts = job.texts
        if self._writes is not None and places:
            self._writes.keep_vectors(
                [texts.texts[place] for place in places],
                stack([texts.vectors[place] for place in places]),
            )

    def fail(self, file: FoundFile, stage: str, error: Exception) -> None:
        """A file cannot be read, cut, embedded or stored."""
        if isinstance(error, DocumentError):
            detail, permanent = str(error), error.permanent
        else:
            detail, permanent = f"{type(error).__name__}: {error}", False
        line = " ".join(detail.split())
        line = line if isinstance(error, DocumentError) else line[:_MOST_ERROR]
        failed = IngestFailure(file.source, stage, line, permanent, fingerprint(file))
        if file.source in self._known:
            failed = self._outdate(failed)
        self._tally.fail(failed)
        if self._writes is not None:
            self._writes.record_failure(failed)

    def remove_outdated(self, source: str) -> None:
        """Remove the version from before a failure that an earlier run met, without pruning."""
        failed = self._failed[source]
        if not failed.permanent:
            return
        self.remove(source)
        if self._writes is not None:  # `remove` forgot it
            self._writes.record_failure(
                replace(failed, error=failed.error.removesuffix(_OLD_STAYS))
            )

    def remove(self, source: str) -> None:
        """A file is gone: remove its document with its members, and its failure."""
        if source in self._known:
            inside = sum(info.container == source for info in self._known.values())
            self._tally.remove(source, 1 + inside)
        if self._writes is not None:
            self._writes.remove(source)

    def _outdate(self, failed: IngestFailure) -> IngestFailure:
        """An earlier version of a file that now fails: remove it if pruning, else say it stays."""
        if not (self._prune and failed.permanent):
            return replace(failed, error=failed.error + _OLD_STAYS)
        self.remove(failed.source)
        return failed

    def _outcome(self, job: Job) -> IngestAction:
        return "updated" if job.file.source in self._known else "added"

    def _count(self, job: Job, outcome: IngestAction, how: IngestAction | None) -> None:
        self._tally.store(job.file.source, outcome, job.num_chunks, how)
