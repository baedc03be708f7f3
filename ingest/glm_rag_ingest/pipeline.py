"""Files in, knowledge base out: look, plan, read and embed what has changed, prune."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glm_rag.build import build_embeddings, open_knowledge_base
from glm_rag.config import load_config
from glm_rag.errors import ConfigError, KnowledgeBaseNotFoundError
from glm_rag.settings import Settings
from glm_rag.types import IngestChange, IngestProgress, IngestReport
from glm_rag_ingest.conveyor import Conveyor
from glm_rag_ingest.discover import Discovery, discover, keep_inside
from glm_rag_ingest.engines import Engine, LocalEngine
from glm_rag_ingest.interruption import Stopped
from glm_rag_ingest.jobs import Cutter
from glm_rag_ingest.plan import Plan, Step
from glm_rag_ingest.process import LoaderProcess
from glm_rag_ingest.progress import Tracker
from glm_rag_ingest.prune import vanished
from glm_rag_ingest.selection import Selection
from glm_rag_ingest.storing import Store
from glm_rag_ingest.tally import Tally

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from glm_rag.knowledge.base import KnowledgeBase

__all__ = ["IngestOptions", "IngestProgress", "IngestReport", "Ingestion", "ingest"]

_MOST_WORKERS = 4  # embedding takes nearly all the time; more readers only wait
_FILES_PER_WORKER = 8  # a process takes longer to start than a few small files to read


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """What a run shall do; see `ingest`.

    `skip_timeouts`: do not read again what took too long before; for runs that follow each other.
    `within`: read only what really lies in one of these folders, wherever links lead; the rest
    fails. Empty: anywhere.
    """

    prune: bool = False
    dry_run: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    workers: int | None = None
    retry_failed: bool = False
    wait: float | None = None
    skip_timeouts: bool = False
    within: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who wants to know: progress of the run, each change, and what a run has to wait for."""

    on_progress: Callable[[IngestProgress], None] | None = None
    on_change: Callable[[IngestChange], None] | None = None
    on_wait: Callable[[str], None] | None = None


def ingest(
    paths: str | Path | Iterable[str | Path],
    kb: str | KnowledgeBase = "default",
    *,
    config: Settings | str | Path | None = None,
    prune: bool = False,
    dry_run: bool = False,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    workers: int | None = None,
    retry_failed: bool = False,
    wait: float | None = None,
    on_progress: Callable[[IngestProgress], None] | None = None,
) -> IngestReport:
    """Read files and folders into a knowledge base; what has not changed is skipped.

    Every file is one transaction: whenever the run ends, finished files are in, and the next run
    goes on with the rest, inside a long file too. A file that cannot be read is listed in
    `failures` and kept in the knowledge base with its reason; it is tried again when it changes.
    Ctrl-C in the main thread lets the batch at hand finish, then raises `KeyboardInterrupt`.

    Args:
        paths: one path or several.
        kb: name (made if it does not exist) or an open knowledge base.
        config: settings, or a YAML file. `ingestion.engine: ray` reads and embeds on a Ray cluster.
        prune: remove documents below `paths` whose files are gone or cannot be read any more.
        dry_run: read and split, but embed and store nothing; counts what a run would do.
        include: only files that match one of these patterns, as in `.gitignore`, relative to the
            folder they are found in.
        exclude: not these; wins over `include`.
        workers: files read at once; default: the setting, else one per core, at most 4 (on a
            cluster one per core).
        retry_failed: read again what failed for good.
        wait: seconds to wait while another run writes into the knowledge base (`math.inf`: as
            long as it takes); default: do not wait.
        on_progress: called about once a second and whenever a file is done.

    Raises:
        ConfigError: no path given, or a pattern that is none.
        KnowledgeBaseError: the knowledge base cannot be used, or another run is writing.
    """
    settings = config if isinstance(config, Settings) else load_config(config)
    options = IngestOptions(
        prune, dry_run, _patterns(include), _patterns(exclude), workers, retry_failed, wait
    )
    return Ingestion(paths, kb, settings, options, Listeners(on_progress)).run()


def _patterns(given: str | Iterable[str]) -> tuple[str, ...]:
    """A single pattern is no sequence of characters, of which `*` would be one."""
    return (given,) if isinstance(given, str) else tuple(given)


class Ingestion:
    """One run. `report()` tells at any time what has been done, also after an interruption."""

    def __init__(
        self,
        paths: str | Path | Iterable[str | Path],
        kb: str | KnowledgeBase,
        settings: Settings,
        options: IngestOptions | None = None,
        listeners: Listeners | None = None,
    ) -> None:
        named = [paths] if isinstance(paths, str | Path) else list(paths)
        # Path("") is the working folder: nobody means it by a variable that is not set.
        if not named or any(isinstance(path, str) and not path.strip() for path in named):
            raise ConfigError("nothing to ingest: name a file or a folder, . for this one")
        self._paths = [Path(path) for path in named]
        if options is not None and options.workers is not None and options.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {options.workers}")
        self._target = kb
        self._settings = settings
        self._options = options or IngestOptions()
        self._listeners = listeners or Listeners()
        self._selection = Selection.of(self._options.include, self._options.exclude)
        self._tally = Tally(self._listeners.on_change)
        self._tracker = Tracker(self._listeners.on_progress)
        self._ended = False
        self._stop = threading.Event()

    def stop(self) -> None:
        """Let `run` end soon, from any thread; what is finished stays, its report says so."""
        self._stop.set()

    def run(self) -> IngestReport:
        """Do it. `KeyboardInterrupt` passes through; what is in the knowledge base stays."""
        try:
            self._run()
        except Stopped:
            pass
        else:
            self._ended = True
        self._tracker.end()
        return self.report()

    def _run(self) -> None:
        found = discover(self._paths, self._selection)
        if self._options.within:
            keep_inside(found, self._options.within)
        for failed in found.failures:
            self._tally.fail(failed)
        self._tracker.begin(len(found.files), sum(file.size for file in found.files))
        self._tracker.tell()
        if found.roots:
            with self._opened(create=bool(found.files)) as kb:
                self._ingest(kb, found)

    def report(self) -> IngestReport:
        """What has been done so far."""
        return self._tally.report(seconds=self._tracker.seconds, interrupted=not self._ended)

    @contextmanager
    def _opened(self, *, create: bool) -> Iterator[KnowledgeBase | None]:
        """What was named, nobody else writing; None in a dry run where there is none yet."""
        options, target = self._options, self._target
        if options.dry_run and isinstance(target, str):
            try:
                kb = open_knowledge_base(self._settings, target)
            except KnowledgeBaseNotFoundError:
                yield None
                return
            with kb:
                yield kb
        elif isinstance(target, str):
            try:
                kb = open_knowledge_base(self._settings, target, create=create)
            except KnowledgeBaseNotFoundError:  # and no file to make one for
                yield None
                return
            with kb, kb.writing(wait=options.wait, on_wait=self._listeners.on_wait):
                yield kb
        elif options.dry_run:
            yield target
        else:
            with target.writing(wait=options.wait, on_wait=self._listeners.on_wait):
                yield target

    def _ingest(self, kb: KnowledgeBase | None, found: Discovery) -> None:
        options = self._options
        known = kb.known_sources() if kb is not None else {}
        failed = {f.source: f for f in kb.failures()} if kb is not None else {}
        store = Store(kb, self._tally, known, failed, prune=options.prune, dry_run=options.dry_run)
        store.note_discovery(found)
        embeddings = kb.embeddings if kb is not None else build_embeddings(self._settings)
        cutter = Cutter(self._settings.splitting, embeddings)
        plan = Plan(
            known,
            failed.values(),
            cutter.recipe,
            retry_failed=options.retry_failed,
            skip_timeouts=options.skip_timeouts,
        )
        planned = [plan.step(file) for file in found.files]
        steps = self._to_do(planned)
        if steps:
            embedder = None if options.dry_run else kb
            with self._engine(cutter, embeddings, len(steps)) as engine:
                Conveyor(embedder, engine, store, self._tally, self._tracker, self._stop).run(steps)
        if options.prune:
            self._prune(found, planned, store)

    def _to_do(self, steps: list[Step]) -> list[Step]:
        """Count what is to be skipped; give the rest."""
        rest = []
        for step in steps:
            if step.task in ("skip", "failed before"):
                self._tally.skip(failed_before=step.task == "failed before")
                self._tracker.skip(step.file)
            else:
                rest.append(step)
        self._tracker.tell()
        return rest

    @contextmanager
    def _engine(self, cutter: Cutter, embeddings: Embeddings, num_steps: int) -> Iterator[Engine]:
        """What reads and embeds so many files: this machine, or a cluster."""
        settings, workers = self._settings, self._options.workers
        if settings.ingestion.engine == "ray":
            from glm_rag_ingest.ray_pipeline.engine import ray_engine

            with ray_engine(
                settings, embeddings, workers=workers, on_wait=self._listeners.on_wait
            ) as on_cluster:
                yield on_cluster
        else:
            yield LocalEngine(cutter, self._new_children(num_steps))

    def _new_children(self, num_steps: int) -> list[LoaderProcess]:
        limits = self._settings.ingestion
        count = self._options.workers or limits.workers
        if count is None:
            count = min(os.cpu_count() or 1, _MOST_WORKERS, -(-num_steps // _FILES_PER_WORKER))
        return [
            LoaderProcess(timeout=limits.file_seconds, memory=limits.file_memory_mb * 10**6)
            for _ in range(min(count, num_steps))
        ]

    def _prune(self, found: Discovery, planned: list[Step], store: Store) -> None:
        """Remove what has no file any more, or one that an earlier run could not read."""
        gone, warnings = vanished(found, store.sources())
        self._tally.warn(warnings)
        for source in gone:
            store.remove(source)
        for step in planned:
            if step.task == "failed before" and step.known is not None:
                store.remove_outdated(step.file.source)
