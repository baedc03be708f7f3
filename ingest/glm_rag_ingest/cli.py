"""`glm-rag ingest`: files and folders into a knowledge base."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glm_rag.cli.common import ConfigOption, JsonOption, KbOption, print_json, to_plain
from glm_rag.config import load_config
from glm_rag.errors import ConfigError, GlmRagError
from glm_rag.settings import Settings, expand_user
from glm_rag.types import IngestChange, IngestReport

if TYPE_CHECKING:
    from glm_rag_ingest.pipeline import IngestOptions

EXIT_INTERRUPTED = 130
_GO_ON = "interrupted: nothing that was finished is lost; run the same command again to go on"


def _path(text: str) -> Path:
    if not text.strip():  # Path("") would be the working folder
        raise typer.BadParameter("an empty path: name a file or a folder, . for this one")
    return Path(text)


PathsArgument = Annotated[
    list[Path], typer.Argument(help="Files and folders.", show_default=False, parser=_path)
]
PruneOption = Annotated[
    bool, typer.Option("--prune", help="Remove documents below PATH whose files are gone.")
]
WatchOption = Annotated[bool, typer.Option("--watch", help="Go on following PATH until Ctrl-C.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Store nothing; say what would be done to each file.")
]
RetryFailedOption = Annotated[
    bool, typer.Option("--retry-failed", help="Read again what failed before.")
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="GLOB", help="Only these files, as *.md or /reports/."),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="GLOB", help="Not these files and folders."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, max=64, help="Processes that read files.", metavar="N"),
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="local|ray",
        help="Where files are read and embedded: here, or on a Ray cluster.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Of the Ray cluster; auto: the one this machine belongs to.",
    ),
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait while another run writes into it.")]
WaitSecondsOption = Annotated[
    float | None,
    typer.Option("--wait-seconds", min=0, metavar="SECONDS", help="Wait so long at most."),
]
ChunkTokensOption = Annotated[
    int | None, typer.Option("--chunk-tokens", help="Most tokens of one passage.")
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(ingest)


def ingest(
    paths: PathsArgument,
    kb: KbOption = "default",
    prune: PruneOption = False,
    watch: WatchOption = False,
    dry_run: DryRunOption = False,
    retry_failed: RetryFailedOption = False,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    workers: WorkersOption = None,
    engine: EngineOption = None,
    address: AddressOption = None,
    wait: WaitOption = False,
    wait_seconds: WaitSecondsOption = None,
    chunk_tokens: ChunkTokensOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Read files and folders into a knowledge base; what has not changed is skipped.

    Stop it whenever you like: what is finished is in, and the same command goes on with the rest.
    Files that cannot be read are listed with the reason.

    Example: glm-rag ingest docs/ --kb mine
    """
    from glm_rag_ingest.pipeline import IngestOptions

    if watch and (json or dry_run):
        raise typer.BadParameter("--watch goes neither with --json nor with --dry-run")
    _refuse_nothing(paths)
    options = IngestOptions(
        prune=prune,
        dry_run=dry_run,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        workers=workers,
        retry_failed=retry_failed,
        wait=math.inf if wait and wait_seconds is None else wait_seconds,
    )
    settings = _settings(config, chunk_tokens, engine, address)
    if watch:
        _watch(paths, kb, settings, options)
    else:
        _once(paths, kb, settings, options, json=json)


def _refuse_nothing(paths: list[Path]) -> None:
    if not any(os.path.lexists(expand_user(path)) for path in paths):
        raise ConfigError(f"no such file or folder: {', '.join(map(str, paths))}")


def _settings(
    config: Path | None, chunk_tokens: int | None, engine: str | None, address: str | None
) -> Settings:
    overrides = {
        "splitting.chunk_tokens": chunk_tokens,
        "ingestion.engine": engine,
        "ingestion.address": address,
    }
    settings = load_config(config, overrides=overrides)
    if address is not None and settings.ingestion.engine != "ray":
        raise typer.BadParameter("--address goes with --engine ray only")
    return settings


def _once(
    paths: list[Path], kb: str, settings: Settings, options: IngestOptions, *, json: bool
) -> None:
    from glm_rag_ingest import display
    from glm_rag_ingest.pipeline import Ingestion, Listeners

    with display.progress(hidden=json) as show:
        run = Ingestion(paths, kb, settings, options, Listeners(show, None, display.note))
        try:
            run.run()
        except KeyboardInterrupt:
            display.note(_GO_ON)
    report = run.report()
    if json:
        print_json({"kb": kb, "dry_run": options.dry_run, **to_plain(report)})
    else:
        for changed in report.changes if options.dry_run else ():
            display.change(changed, would=True)
        display.summary(report, kb, dry_run=options.dry_run)
    if report.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


def _watch(paths: list[Path], kb: str, settings: Settings, options: IngestOptions) -> None:
    from glm_rag_ingest import display
    from glm_rag_ingest.pipeline import Listeners
    from glm_rag_ingest.watch import watch

    told: set[tuple[str, str]] = set()  # failures; many come again with every run
    is_first = True

    def on_run(result: IngestReport | GlmRagError) -> None:
        nonlocal is_first
        if isinstance(result, GlmRagError):
            display.note(f"glm-rag: {' '.join(str(result).split())}")
            return
        failures = {(failed.source, failed.error): failed for failed in result.failures}
        if is_first:
            display.summary(result, kb, dry_run=False)
            display.note("watching; Ctrl-C ends it")
            is_first = False
        else:
            display.failures([failures[key] for key in failures if key not in told])
        told.clear()
        told.update(failures)

    def on_change(changed: IngestChange) -> None:
        if changed.action != "failed":  # `on_run` has the reason
            display.change(changed)

    with display.progress(hidden=False) as show:
        try:
            watch(paths, kb, settings, options, Listeners(show, on_change, display.note), on_run)
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
