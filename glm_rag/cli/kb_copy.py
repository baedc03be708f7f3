"""`glm-rag kb copy`: a knowledge base into Milvus, out of it, or into another data folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.text import Text

from glm_rag.cli.common import ConfigOption, JsonOption, console, print_json, progress_bar
from glm_rag.config import load_config
from glm_rag.errors import ConfigError
from glm_rag.settings import Settings, expand_user

if TYPE_CHECKING:
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.knowledge.copying import CopyReport


def register(kb: typer.Typer) -> None:
    """Add the command to `glm-rag kb`."""
    kb.command()(copy)


def copy(
    name: Annotated[str, typer.Argument(help="Name of the knowledge base.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="milvus://HOST:19530/DATABASE, a file NAME.db of milvus-lite, or a data folder.",
        ),
    ],
    new_name: Annotated[
        str | None, typer.Option("--name", help="Name it shall have there; default: the same.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove there what this one does not hold.")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Copy a knowledge base into Milvus, out of it, or into another data folder.

    Texts, vectors, failures, copies and calibration go along; nothing is embedded again. What is
    there already is skipped, so that a run that was broken off goes on; in the end both are
    compared. The token of Milvus comes from GLM_RAG_STORE__TOKEN.

    Example: glm-rag kb copy handbook --to milvus://127.0.0.1:19530

    Example: GLM_RAG_STORE__BACKEND=milvus GLM_RAG_STORE__URI=http://127.0.0.1:19530
    glm-rag kb copy handbook --to ~/another-home
    """
    from glm_rag.knowledge import copying
    from glm_rag.stores import reopen_knowledge_base

    settings = load_config(config)
    with ExitStack() as stack:
        source = stack.enter_context(reopen_knowledge_base(settings, name))
        target = stack.enter_context(_opened(settings, to, new_name or name, source))
        _refuse_itself(source, target)
        stack.enter_context(target.writing())
        tell = stack.enter_context(progress_bar(hidden=json))
        report = copying.copy(
            source, target, prune=prune, on_progress=lambda done, all_: tell("copying", done, all_)
        )
        _copy_prompt(source.path, target.path)
        place = target.info().path
    if json:
        print_json({"copied": name, "name": new_name or name, "to": place, "report": report})
    else:
        console.print(Text(_told(report, name, new_name or name, place)), soft_wrap=True)


def _opened(settings: Settings, to: str, name: str, source: KnowledgeBase) -> KnowledgeBase:
    """The target, made if it is missing, with the embedder's name alone."""
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.knowledge.copying import RememberedEmbeddings
    from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase
    from glm_rag.knowledge.milvus.naming import Location

    if not to.strip():
        raise ConfigError("--to is empty: name a Milvus, or a data folder")
    embeddings = RememberedEmbeddings(source.embeddings_name)
    if "://" not in to and not to.endswith(".db"):
        home = expand_user(to)
        return KnowledgeBase.open(name, home=home, embeddings=embeddings, create=True)
    opened = MilvusKnowledgeBase.open(
        name,
        location=Location.parse(to, token=settings.store.token),
        home=settings.home,
        embeddings=embeddings,
        create=True,
    )
    return cast("KnowledgeBase", opened)


def _refuse_itself(source: KnowledgeBase, target: KnowledgeBase) -> None:
    if source.path.resolve() == target.path.resolve():
        raise ConfigError(
            f"{source.name!r} is there already: name another place with --to, or another name "
            "with --name"
        )


def _copy_prompt(source: Path, target: Path) -> None:
    from glm_rag.templates import PROMPT_FILE, write_own

    if (source / PROMPT_FILE).is_file():
        write_own(target / PROMPT_FILE, (source / PROMPT_FILE).read_bytes())


def _told(report: CopyReport, name: str, new_name: str, place: str) -> str:
    named = name if name == new_name else f"{name} as {new_name}"
    return (
        f"Copied {named} to {place}: {report.num_documents} documents, {report.num_chunks} "
        f"passages, {report.num_copies} copies, {report.num_failures} failures, all compared; "
        f"{report.num_present} of {report.num_files} files were there already."
    )
