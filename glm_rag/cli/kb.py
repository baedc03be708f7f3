"""`glm-rag kb`: look at and change knowledge bases."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

import typer
from rich.table import Table
from rich.text import Text

from glm_rag.cli import kb_care, kb_copy, kb_prompt, kb_warm
from glm_rag.cli.common import (
    ConfigOption,
    JsonOption,
    KbOption,
    console,
    human_size,
    print_json,
)
from glm_rag.config import load_config
from glm_rag.errors import KnowledgeBaseError
from glm_rag.settings import Settings, expand_user
from glm_rag.types import DocumentInfo, IngestFailure, KnowledgeBaseInfo

app = typer.Typer(help="Look at and change knowledge bases.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the knowledge base.")]
KbArgument = Annotated[
    str | None, typer.Argument(help="Name of the knowledge base, instead of --kb.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


# What stands for the totals of a knowledge base that cannot be opened.
_NO_COUNTS = ("unusable", "-", "-")


def register(parent: typer.Typer) -> None:
    """Add the `kb` commands to `parent`."""
    kb_care.register(app)
    kb_copy.register(app)
    kb_prompt.register(app)
    parent.add_typer(app, name="kb")


@app.command("list")
def list_(config: ConfigOption = None, json: JsonOption = False) -> None:
    """List the knowledge bases.

    One that cannot be opened is listed with the reason.

    Example: glm-rag kb list
    """
    from glm_rag.build import info_or_error, list_knowledge_bases

    settings = load_config(config)
    infos = [info_or_error(settings, name) for name in list_knowledge_bases(settings)]
    if json:
        print_json(infos)
        return
    if not infos:
        console.print("No knowledge base yet. Make one: glm-rag ingest PATH --kb NAME")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "documents", "passages", "failures", "size"):
        table.add_column(column, justify="left" if column == "name" else "right")
    for info in infos:
        table.add_row(*_summary(info))
    console.print(table)
    for info in infos:
        if info.error:
            console.print(Text(f"{info.name}: {info.error}", style="red"), soft_wrap=True)


def _summary(info: KnowledgeBaseInfo) -> tuple[str, ...]:
    if info.error:
        return (info.name, *_NO_COUNTS, _size(info))
    counts = (info.num_documents, info.num_chunks, info.num_failures)
    return (info.name, *(str(count) for count in counts), _size(info))


def _size(info: KnowledgeBaseInfo) -> str:
    """What it takes on the disk; Milvus does not say."""
    return human_size(info.size_bytes) if info.size_bytes else "-"


def _info(settings: Settings, name: str) -> KnowledgeBaseInfo:
    from glm_rag.build import open_knowledge_base

    with open_knowledge_base(settings, name) as kb:
        return kb.info()


@app.command()
def info(name: Name = "default", config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show the totals of one knowledge base.

    Example: glm-rag kb info handbook
    """
    found = _info(load_config(config), name)
    if json:
        print_json(found)
        return
    rows = {
        "name": found.name,
        "folder": found.path,
        "documents": found.num_documents,
        "passages": found.num_chunks,
        "failures": found.num_failures,
        "embedder": f"{found.embeddings} ({found.dimension} dimensions)",
        "size": _size(found),
        "languages": ", ".join(f"{lang}: {n}" for lang, n in found.languages.items()) or "-",
    }
    for label, value in rows.items():
        console.print(Text.assemble((f"{label:<10} ", "dim"), str(value)), soft_wrap=True)


@app.command()
def documents(
    name: KbArgument = None,
    kb: KbOption = "default",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List the documents of a knowledge base.

    Example: glm-rag kb documents handbook
    """
    from glm_rag.build import open_knowledge_base

    with open_knowledge_base(load_config(config), name or kb) as opened:
        found = opened.documents()
    if json:
        print_json(found)
    else:
        console.print(_documents_table(found) if found else "No documents.")
        for document in found:
            for warning in document.warnings:
                console.print(Text(f"{document.title}: {warning}", style="yellow"))


def _documents_table(found: list[DocumentInfo]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("title", overflow="fold")
    table.add_column("language")
    table.add_column("passages", justify="right")
    table.add_column("characters", justify="right")
    table.add_column("added")
    table.add_column("warnings", justify="right")
    table.add_column("source", overflow="fold")
    for document in found:
        added = datetime.fromtimestamp(document.added_at).strftime("%Y-%m-%d %H:%M")
        counts = (str(document.num_chunks), str(document.num_characters))
        source = Text(document.source, style="dim")
        warnings = str(len(document.warnings) or "-")
        table.add_row(Text(document.title), document.language, *counts, added, warnings, source)
    return table


@app.command()
def failures(
    name: KbArgument = None,
    kb: KbOption = "default",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List the files that could not be ingested, and why.

    Example: glm-rag kb failures handbook
    """
    from glm_rag.build import open_knowledge_base

    with open_knowledge_base(load_config(config), name or kb) as opened:
        found = opened.failures()
    if json:
        print_json(found)
    else:
        console.print(failures_table(found) if found else "No failures.")


def failures_table(found: list[IngestFailure]) -> Table:
    """Failures as a table: source, stage, reason."""
    table = Table(box=None, pad_edge=False)
    table.add_column("source", overflow="fold")
    table.add_column("stage")
    table.add_column("reason", overflow="fold")
    for failure in found:
        table.add_row(Text(failure.source), failure.stage, Text(failure.error))
    return table


@app.command()
def remove(
    source: Annotated[str, typer.Argument(help="Source URI, path or title of a document.")],
    kb: KbOption = "default",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Remove one document from a knowledge base; its file is not touched.

    Example: glm-rag kb remove handbook/old-policy.pdf --kb handbook
    """
    from glm_rag.build import open_knowledge_base

    with open_knowledge_base(load_config(config), kb) as opened:
        target = _match_source(source, list(opened.known_sources().values()), kb)
        opened.remove(target)
    if json:
        print_json({"removed": target})
    else:
        console.print(Text(f"Removed {target} from {kb}."))


def _match_source(wanted: str, found: list[DocumentInfo], kb: str) -> str:
    """The one source that `wanted` names: exactly, as a path, as a path inside, or as a title."""
    places = {(_uri_of(wanted), "")}
    for mark in re.finditer("#", wanted):
        places.add((_uri_of(wanted[: mark.start()]), wanted[mark.end() :]))
    sources = [d.source for d in found if d.source == wanted or _place_of(d.source) in places]
    sources = sources or [document.source for document in found if document.title == wanted]
    if not sources:
        raise KnowledgeBaseError(
            f"no document {wanted!r} in knowledge base {kb!r}: see glm-rag kb documents --kb {kb}"
        )
    if len(sources) > 1:
        raise KnowledgeBaseError(
            f"{len(sources)} documents are titled {wanted!r}: name one by its source"
        )
    return sources[0]


def _uri_of(path: str) -> str:
    return Path(os.path.realpath(expand_user(path))).as_uri()


def _place_of(source: str) -> tuple[str, str]:
    """The file of a source, and the path inside it, as it is shown: empty for the file itself."""
    file, _, inside = source.partition("#")
    return file, unquote(inside)


kb_warm.register(app)  # here, for its place in the help


@app.command()
def delete(
    name: Name, yes: YesOption = False, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Delete a whole knowledge base; the files it was made from are not touched.

    A damaged one can be deleted too.

    Example: glm-rag kb delete handbook
    """
    from glm_rag.stores import delete_knowledge_base, info_or_error

    settings = load_config(config)
    found = info_or_error(settings, name)
    if not yes:
        what = "which cannot be opened" if found.error else f"with {found.num_documents} documents"
        typer.confirm(f"Delete {name}, {what}?", abort=True, err=True)
    delete_knowledge_base(settings, name)
    if json:
        print_json({"deleted": name})
    else:
        console.print(Text(f"Deleted {name}."))
