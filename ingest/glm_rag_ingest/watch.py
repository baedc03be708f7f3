"""Follow folders: a run after every change, until somebody stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from glm_rag.errors import ConfigError, GlmRagError, MissingDependencyError
from glm_rag.settings import Settings, expand_user
from glm_rag.types import IngestReport
from glm_rag_ingest.pipeline import Ingestion, IngestOptions, Listeners

if TYPE_CHECKING:
    import threading

# An editor writes a file in several steps, a copy grows: wait until nothing has happened for so
# long, but not for ever.
_QUIET_MS = 400
_LONGEST_MS = 5000
_LOOK_MS = 500

OnRun = Callable[[IngestReport | GlmRagError], None]


def watch(
    paths: Sequence[Path],
    kb: str,
    settings: Settings,
    options: IngestOptions,
    listeners: Listeners,
    on_run: OnRun,
    *,
    stop: threading.Event | None = None,
) -> None:
    """Ingest `paths`, then again whenever something below them changes.

    An error ends one run, not the watching: it goes to `on_run`, and the next change tries again.
    The knowledge base is free for other writers between two runs.

    Args:
        on_run: gets the report of every run, or the error that ended it.
        stop: ends it; so does Ctrl-C, which raises `KeyboardInterrupt`.

    Raises:
        ConfigError: none of the paths is there. MissingDependencyError: no watchfiles.
    """
    folders = [path for path in map(expand_user, paths) if path.exists()]
    if not folders:
        raise ConfigError(f"no such file or folder: {', '.join(map(str, paths))}")
    changes = _changes(folders, settings.home, stop)
    next(changes, None)  # from here on no change is missed, also during the first run
    if options.wait is None:  # a change is not lost to somebody else's long run
        options = replace(options, wait=float("inf"))
    while True:
        run = Ingestion(paths, kb, settings, options, listeners)
        try:
            on_run(run.run())
        except GlmRagError as error:
            on_run(error)
        # What took minutes for nothing shall not do so after every change of another file.
        options = replace(options, retry_failed=False, skip_timeouts=True)
        if not any(changes):  # skips the looks that found nothing
            return


def _changes(
    folders: Sequence[Path], home: Path, stop: threading.Event | None
) -> Iterator[Set[object]]:
    try:
        import watchfiles
    except ImportError as error:
        raise MissingDependencyError.for_extra("watchfiles", "documents") from error
    own = home.resolve()  # a run writes there, which must not start the next one
    return watchfiles.watch(
        *folders,
        watch_filter=lambda _, path: not Path(path).is_relative_to(own),
        debounce=_LONGEST_MS,
        step=_QUIET_MS,
        rust_timeout=_LOOK_MS,
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=True,
    )
