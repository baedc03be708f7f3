"""Files in, knowledge base out: one document at a time, one transaction each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glm_rag.build import build_embeddings, open_knowledge_base
from glm_rag.config import Settings, load_config
from glm_rag.errors import ConfigError, DocumentError, GlmRagError, KnowledgeBaseNotFoundError
from glm_rag.types import Chunk, DocumentInfo, IngestFailure, IngestProgress, IngestReport
from glm_rag_ingest import loaders, splitting
from glm_rag_ingest.counting import token_counter
from glm_rag_ingest.discover import Discovery, FoundFile, discover
from glm_rag_ingest.process import TIMEOUT, LoaderProcess
from glm_rag_ingest.prune import sources_below, vanished

if TYPE_CHECKING:
    from glm_rag.knowledge.base import KnowledgeBase

__all__ = ["IngestProgress", "IngestReport", "Ingestion", "ingest"]

# Chunks embedded between two reports of progress.
_EMBED_BATCH = 64
# A file changed again within this many seconds of being read may keep its size and its time.
_CLOCK_SECONDS = 2.0


def ingest(
    paths: str | Path | Iterable[str | Path],
    kb: str | KnowledgeBase = "default",
    *,
    config: Settings | str | Path | None = None,
    prune: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[IngestProgress], None] | None = None,
) -> IngestReport:
    """Read files and folders into a knowledge base; what has not changed is skipped.

    Every file is one transaction: whenever the run ends, finished files are in, and the next run
    goes on with the rest. A file that cannot be read is listed in `failures` and kept in the
    knowledge base with its reason; it is tried again when it changes.

    Args:
        paths: one path or several.
        kb: name (made if it does not exist) or an open knowledge base.
        config: settings, or a YAML file.
        prune: remove documents below `paths` whose files are gone or cannot be read any more.
        dry_run: read and split, but store nothing; counts what a run would do.
        on_progress: called before every file and between batches of a large one.

    Raises:
        ConfigError: no path given. KnowledgeBaseError: the knowledge base cannot be used.
    """
    settings = config if isinstance(config, Settings) else load_config(config)
    run = Ingestion(paths, kb, settings, prune=prune, dry_run=dry_run, on_progress=on_progress)
    return run.run()


class Ingestion:
    """One run. `report()` tells at any time what has been done, also after an interruption."""

    def __init__(
        self,
        paths: str | Path | Iterable[str | Path],
        kb: str | KnowledgeBase,
        settings: Settings,
        *,
        prune: bool = False,
        dry_run: bool = False,
        on_progress: Callable[[IngestProgress], None] | None = None,
        load_timeout: float = TIMEOUT,
    ) -> None:
        self._paths = [Path(paths)] if isinstance(paths, str | Path) else [Path(p) for p in paths]
        if not self._paths:
            raise ConfigError("nothing to ingest: name a file or a folder")
        self._target = kb
        self._settings = settings
        self._prune = prune
        self._dry_run = dry_run
        self._on_progress = on_progress
        self._loader = LoaderProcess(timeout=load_timeout)
        self._recipe = (
            f"{splitting.VERSION}:{settings.splitting.chunk_tokens}"
            f":{settings.splitting.overlap_tokens}"
        )
        self._counts = {"added": 0, "updated": 0, "skipped": 0, "failed before": 0, "deleted": 0}
        self._failures: list[IngestFailure] = []
        self._warnings: list[str] = []
        self._num_chunks = 0
        self._progress = IngestProgress(0, 0, 0, 0, "", 0, 0.0)
        self._started = time.perf_counter()

    def run(self) -> IngestReport:
        """Do it. `KeyboardInterrupt` passes through; what is in the knowledge base stays."""
        found = discover(self._paths)
        self._failures.extend(found.failures)
        self._tell(total=len(found.files), bytes_total=sum(file.size for file in found.files))
        if found.roots:
            with self._opened(create=bool(found.files)), self._loader:
                self._ingest_all(found)
        self._tell(current="")
        return self.report()

    def report(self) -> IngestReport:
        """What has been done so far."""
        return IngestReport(
            num_added=self._counts["added"],
            num_updated=self._counts["updated"],
            num_skipped=self._counts["skipped"],
            num_deleted=self._counts["deleted"],
            failures=tuple(self._failures),
            num_chunks=self._num_chunks,
            seconds=time.perf_counter() - self._started,
            warnings=tuple(self._warnings),
            num_failed_before=self._counts["failed before"],
        )

    # ------------------------------------------------------------ the knowledge base

    @contextmanager
    def _opened(self, *, create: bool) -> Iterator[None]:
        """Open what was named, and learn what it knows; a dry run makes no knowledge base."""
        if not isinstance(self._target, str):
            self._learn(self._target)
            yield
            return
        try:
            kb = open_knowledge_base(
                self._settings, self._target, create=create and not self._dry_run
            )
        except KnowledgeBaseNotFoundError:
            self._learn(None)
            yield
            return
        with kb:
            self._learn(kb)
            yield

    def _learn(self, kb: KnowledgeBase | None) -> None:
        self._kb = kb
        embeddings = kb.embeddings if kb is not None else build_embeddings(self._settings)
        self._count_tokens, self._max_tokens = token_counter(embeddings)
        documents = kb.documents() if kb is not None else []
        failures = kb.failures() if kb is not None else []
        self._known = {document.source: document for document in documents}
        self._failed = {failure.source: failure for failure in failures}

    def _stored(self) -> KnowledgeBase | None:
        """The knowledge base to write to; None in a dry run."""
        return None if self._dry_run else self._kb

    # ------------------------------------------------------------ files

    def _ingest_all(self, found: Discovery) -> None:
        self._keep_discovery_failures(found)
        bytes_done = 0
        for done, file in enumerate(found.files):
            self._tell(done=done, bytes_done=bytes_done, current=str(file.path))
            if self._is_done(file):
                self._counts["skipped"] += 1
                self._counts["failed before"] += file.source in self._failed
            else:
                self._ingest_file(file)
            bytes_done += file.size
        self._tell(done=len(found.files), bytes_done=bytes_done)
        if self._prune:
            self._remove_vanished(found)

    def _is_done(self, file: FoundFile) -> bool:
        """Whether these bytes were read before by the same loaders, with or without success."""
        failed = self._failed.get(file.source)
        if failed is not None:
            return failed.permanent and failed.fingerprint == _fingerprint(file)
        known = self._known.get(file.source)
        if known is None or known.size != file.size or not self._is_current(known):
            return False
        settled = abs(known.added_at - file.mtime) > _CLOCK_SECONDS
        if known.mtime == file.mtime and settled:
            return True
        if _sha256(file.path) != known.sha256:
            return False
        kb = self._stored()
        if kb is not None and known.mtime != file.mtime:
            kb.touch(file.source, size=file.size, mtime=file.mtime)
        return True

    def _is_current(self, known: DocumentInfo) -> bool:
        parser_version, _, recipe = known.parser_version.partition("+")
        return recipe == self._recipe and loaders.is_current(parser_version)

    def _ingest_file(self, file: FoundFile) -> None:
        self._stage = "load"
        try:
            self._read_and_store(file)
        except DocumentError as error:
            self._fail(file, str(error), permanent=error.permanent)
        except GlmRagError:
            raise  # concerns all files: no embedder, no disk space
        # Whatever else goes wrong with one file, the others are to be ingested.
        except Exception as error:  # noqa: BLE001
            detail = " ".join(f"{type(error).__name__}: {error}".split())
            self._fail(file, detail[:300], permanent=False)

    def _read_and_store(self, file: FoundFile) -> None:
        (document,) = self._loader.load(file.path).documents
        name = loaders.display_name(file.path)
        document = replace(
            document,
            source=file.source,
            parser_version=f"{document.parser_version}+{self._recipe}",
        )
        self._stage = "split"
        chunks = splitting.split(
            document, self._count_tokens, self._settings.splitting, self._max_tokens
        )
        kb = self._stored()
        if kb is None:
            outcome = "updated" if file.source in self._known else "added"
        else:
            self._stage = "embed"
            vectors = self._embed(kb, chunks, file)
            self._stage = "store"
            outcome = kb.put_document(document, chunks, vectors)
        self._counts[outcome] += 1
        self._num_chunks += len(chunks)
        self._warnings.extend(f"{name}: {warning}" for warning in document.warnings)

    def _embed(self, kb: KnowledgeBase, chunks: Sequence[Chunk], file: FoundFile) -> np.ndarray:
        done = self._progress.bytes_done
        parts = []
        for start in range(0, len(chunks), _EMBED_BATCH):
            parts.append(kb.embed_chunks(chunks[start : start + _EMBED_BATCH]))
            share = min(1.0, (start + _EMBED_BATCH) / len(chunks))
            self._tell(bytes_done=done + int(share * file.size))
        return np.concatenate(parts)

    # ------------------------------------------------------------ failures and removals

    def _fail(self, file: FoundFile, error: str, *, permanent: bool) -> None:
        failed = IngestFailure(file.source, self._stage, error, permanent, _fingerprint(file))
        if file.source in self._known:
            failed = self._outdate(failed)
        self._keep(failed)

    def _outdate(self, failed: IngestFailure) -> IngestFailure:
        """An earlier version of a file that now fails: remove it if pruning, else say it stays."""
        if not (self._prune and failed.permanent):
            note = "the version ingested before is still searched"
            return replace(failed, error=f"{failed.error}; {note}")
        kb = self._stored()
        if kb is not None:
            kb.remove(failed.source)
        self._counts["deleted"] += 1
        return failed

    def _keep(self, failed: IngestFailure) -> None:
        self._failures.append(failed)
        kb = self._stored()
        if kb is not None:
            kb.record_failure(failed)

    def _keep_discovery_failures(self, found: Discovery) -> None:
        """Record what may not be looked at below the named paths, and forget what now may."""
        kb = self._stored()
        if kb is None:
            return
        current = {failed.source: failed for failed in found.failures}
        before = [s for s, failed in self._failed.items() if failed.stage == "discover"]
        for source, _ in sources_below(found.roots, before):
            if source not in current:
                kb.clear_failure(source)
        for source, _ in sources_below(found.roots, current):
            kb.record_failure(current[source])

    def _remove_vanished(self, found: Discovery) -> None:
        gone, warnings = vanished(found, {**self._known, **self._failed})
        self._warnings.extend(warnings)
        kb = self._stored()
        for source in gone:
            self._counts["deleted"] += source in self._known
            if kb is not None:
                kb.remove(source)

    # ------------------------------------------------------------ progress

    def _tell(self, **changes: Any) -> None:
        seconds = time.perf_counter() - self._started
        self._progress = replace(
            self._progress, **changes, num_chunks=self._num_chunks, seconds=seconds
        )
        if self._on_progress is not None:
            self._on_progress(self._progress)


def _fingerprint(file: FoundFile) -> str:
    return f"{file.size}:{file.mtime!r}:{loaders.versions()}"


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
