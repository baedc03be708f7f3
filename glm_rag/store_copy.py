"""A knowledge base once more, under another name in the same store."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glm_rag.errors import KnowledgeBaseError
from glm_rag.stores import list_knowledge_bases, reopen_knowledge_base, unfinished

if TYPE_CHECKING:
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.knowledge.copying import CopyReport, RememberedEmbeddings
    from glm_rag.settings import Settings


def copy_within_store(
    settings: Settings,
    name: str,
    to: str,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> CopyReport:
    """Copy with texts, vectors, failures, calibration and the words of its prompts.

    The copy appears when it is whole.

    Args:
        on_progress: gets the number of passages done, and of all; what it raises ends the copy.

    Raises:
        ConfigError: `to` is no name. KnowledgeBaseNotFoundError: there is none of that name.
        KnowledgeBaseBusyError: somebody is writing into it.
        KnowledgeBaseError: there is one of the new name already, or it cannot be written.
    """
    from glm_rag.knowledge.copying import RememberedEmbeddings, copy
    from glm_rag.templates import PROMPT_FILE, write_own

    _check_free(settings, to)
    place = _in_milvus if settings.store.backend == "milvus" else _in_folder
    with (
        reopen_knowledge_base(settings, name) as source,
        source.writing(),
        place(settings, to, RememberedEmbeddings(source.embeddings_name)) as target,
    ):
        report = copy(source, target, on_progress=on_progress)
        own = source.path / PROMPT_FILE
        if own.is_file():
            write_own(target.path / PROMPT_FILE, own.read_bytes())
    return report


def _check_free(settings: Settings, name: str) -> None:
    if name in list_knowledge_bases(settings):
        raise KnowledgeBaseError(
            f"there is a knowledge base {name!r} already: choose another name, or delete it first"
        )


@contextmanager
def _in_folder(
    settings: Settings, name: str, embeddings: RememberedEmbeddings
) -> Iterator[KnowledgeBase]:
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.knowledge.naming import free_folder
    from glm_rag.knowledge.transfer import UNFINISHED

    final = free_folder(name, settings.home)
    # Beside it, so that it can be moved; what a kill leaves is swept as that of an import.
    home = final.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
    try:
        with KnowledgeBase.open(name, home=home, embeddings=embeddings, create=True) as target:
            yield target
            folder = target.path
        folder.rename(free_folder(name, settings.home))
    except OSError as error:
        raise KnowledgeBaseError(f"cannot write {final}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _in_milvus(
    settings: Settings, name: str, embeddings: RememberedEmbeddings
) -> Iterator[KnowledgeBase]:
    with (
        unfinished(settings, name) as temporary,
        reopen_knowledge_base(settings, temporary, embeddings, create=True) as target,
    ):
        yield target
