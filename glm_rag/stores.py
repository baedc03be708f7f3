"""Where knowledge bases live: the data folder, or Milvus; everything done to a whole one."""

from __future__ import annotations

import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from glm_rag.errors import KnowledgeBaseError, KnowledgeBaseNotFoundError
from glm_rag.settings import Settings
from glm_rag.types import KnowledgeBaseInfo

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.knowledge.milvus.naming import Location

# What an import is called in Milvus until it is complete, and when a killed one is swept.
_UNFINISHED = re.compile(r"import-[0-9a-f]{32}")
_STALE_NS = 24 * 3600 * 10**9


def reopen_knowledge_base(
    settings: Settings,
    name: str,
    embeddings: Embeddings | None = None,
    *,
    create: bool = False,
) -> KnowledgeBase:
    """As `open_knowledge_base`, by default with the embedder that it remembers."""
    if settings.store.backend == "milvus":
        from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase

        opened = MilvusKnowledgeBase.open(
            name,
            location=milvus_location(settings),
            home=settings.home,
            embeddings=embeddings,
            create=create,
        )
        # It has the public methods of a KnowledgeBase, which is what all callers are written for.
        return cast("KnowledgeBase", opened)
    from glm_rag.knowledge.base import KnowledgeBase

    return KnowledgeBase.open(name, home=settings.home, embeddings=embeddings, create=create)


def milvus_location(settings: Settings) -> Location:
    """Where these settings say that Milvus is."""
    from glm_rag.knowledge.milvus.naming import Location

    store = settings.store
    return Location(store.uri, store.token, store.database)


def info_or_error(settings: Settings, name: str) -> KnowledgeBaseInfo:
    """Totals of a knowledge base, or why there are none: a damaged one must not hide the others.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name.
    """
    from glm_rag.embeddings import create_embeddings
    from glm_rag.knowledge.naming import existing_folder, folder_size

    embeddings = create_embeddings(settings.embeddings)
    try:
        if settings.store.backend == "milvus":
            return _info_in_milvus(settings, name, embeddings)
        with reopen_knowledge_base(settings, name, embeddings) as kb:
            return kb.info()
    except KnowledgeBaseNotFoundError:
        raise
    except KnowledgeBaseError as error:
        reason = " ".join(str(error).split())
        if settings.store.backend == "milvus":
            return KnowledgeBaseInfo(name, settings.store.uri, 0, 0, 0, "", 0, 0, error=reason)
        folder = existing_folder(name, settings.home)
        size = folder_size(folder)
        return KnowledgeBaseInfo(name, str(folder), 0, 0, 0, "", 0, size, error=reason)


def _info_in_milvus(settings: Settings, name: str, embeddings: Embeddings) -> KnowledgeBaseInfo:
    from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase
    from glm_rag.knowledge.milvus.kept import asking
    from glm_rag.knowledge.milvus.naming import present_stem

    location = milvus_location(settings)
    with asking(location) as milvus:
        stem, folder = present_stem(milvus, name), location.folder(settings.home, name)
        # It is not closed: the connection is everybody's.
        return MilvusKnowledgeBase(name, milvus, stem, folder, embeddings=embeddings).info()


def list_knowledge_bases(settings: Settings) -> Sequence[str]:
    """Names of the knowledge bases in the data folder, or in Milvus, sorted."""
    if settings.store.backend == "milvus":
        from glm_rag.knowledge.milvus.kept import asking
        from glm_rag.knowledge.milvus.naming import list_in as list_in_milvus

        with asking(milvus_location(settings)) as milvus:
            return [name for name in list_in_milvus(milvus) if not _UNFINISHED.fullmatch(name)]
    from glm_rag.knowledge.base import list_knowledge_bases as list_in

    return list_in(settings.home)


def identity_of(settings: Settings, name: str) -> int:
    """A number that changes when a knowledge base is deleted and made anew.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name.
        KnowledgeBaseError: Milvus does not answer.
    """
    if settings.store.backend == "milvus":
        from glm_rag.knowledge.milvus.kept import asking
        from glm_rag.knowledge.milvus.naming import born

        with asking(milvus_location(settings)) as milvus:
            return born(milvus, name)
    from glm_rag.knowledge.database import FILE_NAME
    from glm_rag.knowledge.naming import existing_folder

    # Of the file, not the folder: whoever still has a deleted one open keeps its number taken.
    return (existing_folder(name, settings.home) / FILE_NAME).stat().st_ino


def delete_knowledge_base(settings: Settings, name: str) -> None:
    """Delete a knowledge base with everything in it; the documents' files stay.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name.
        KnowledgeBaseError: somebody is ingesting, no permission, or Milvus does not answer.
    """
    if settings.store.backend == "milvus":
        _delete_in_milvus(settings, name)
        return
    from glm_rag.knowledge.base import delete_knowledge_base as delete_in

    delete_in(name, settings.home)


def close_connections() -> None:
    """Let go of what is kept for short questions about the store; the next one connects anew."""
    kept = sys.modules.get("glm_rag.knowledge.milvus.kept")
    if kept is not None:
        kept.close()


def _delete_in_milvus(settings: Settings, name: str) -> None:
    from glm_rag.knowledge.milvus.naming import delete_in, named_stem

    location = milvus_location(settings)
    own = location.folder(settings.home, name)
    with closing(location.connect()) as milvus:
        named_stem(milvus, name)
        with _lock_of(own, name):
            delete_in(milvus, name)
            # Else one that is made anew would be asked with the old one's words.
            _clear(own)


@contextmanager
def _lock_of(own: Path, name: str) -> Iterator[None]:
    """Hold the lock that writers of this machine ask for, in its folder beside Milvus."""
    from glm_rag.knowledge import lock

    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KnowledgeBaseError(f"cannot write into {own}: {error.strerror}") from error
    with lock.writing(own, name):
        yield


def _clear(folder: Path) -> None:
    if folder.exists():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise KnowledgeBaseError(f"cannot delete {folder}: {error.strerror}") from error


def local_folder(settings: Settings, name: str) -> Path:
    """What this machine keeps of a knowledge base that exists: all of it, or what is not shared.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name.
    """
    if settings.store.backend == "milvus":
        from glm_rag.knowledge.milvus.kept import asking
        from glm_rag.knowledge.milvus.naming import existing_stem

        location = milvus_location(settings)
        with asking(location) as milvus:
            existing_stem(milvus, name)
        return location.folder(settings.home, name)
    from glm_rag.knowledge.naming import existing_folder

    return existing_folder(name, settings.home)


def rename_knowledge_base(settings: Settings, old: str, new: str) -> None:
    """Give a knowledge base another name; errors as of `knowledge.transfer.rename`."""
    if settings.store.backend != "milvus":
        from glm_rag.knowledge.transfer import rename

        rename(old, new, settings.home)
        return
    _rename_in_milvus(settings, old, new)


def _rename_in_milvus(settings: Settings, old: str, new: str) -> None:
    from glm_rag.knowledge.milvus.naming import named_stem, rename_in
    from glm_rag.knowledge.naming import folder_of
    from glm_rag.knowledge.transfer import belongings

    location = milvus_location(settings)
    before, after = (folder_of(name, settings.home).name for name in (old, new))
    own, target = (location.folder(settings.home, name) for name in (old, new))
    with closing(location.connect()) as milvus:
        named_stem(milvus, old)
        with _lock_of(own, old), belongings(before, after, settings.home):
            rename_in(milvus, old, new)
            # What a deletion on another machine has left here.
            _clear(target)
            own.replace(target)


@contextmanager
def in_data_folder(settings: Settings, name: str) -> Iterator[Path]:
    """A data folder that holds a knowledge base: the one of these settings, or a copy for a while.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name.
    """
    if settings.store.backend != "milvus":
        yield settings.home
        return
    from tempfile import TemporaryDirectory

    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.knowledge.copying import RememberedEmbeddings, copy

    with TemporaryDirectory(dir=_scratch(settings)) as folder:
        with reopen_knowledge_base(settings, name) as source:
            embeddings = RememberedEmbeddings(source.embeddings_name)
            home = Path(folder)
            with KnowledgeBase.open(name, home=home, embeddings=embeddings, create=True) as target:
                copy(source, target)
        yield home


@contextmanager
def into_store(settings: Settings) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A data folder to make a knowledge base in, and what puts it where these settings say.

    Raises:
        KnowledgeBaseError: there is one of that name.
    """
    if settings.store.backend != "milvus":
        yield settings.home, lambda name: None
        return
    from tempfile import TemporaryDirectory

    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.knowledge.copying import RememberedEmbeddings, copy

    with TemporaryDirectory(dir=_scratch(settings)) as folder:
        home = Path(folder)

        def finish(name: str) -> None:
            if name in list_knowledge_bases(settings):
                raise KnowledgeBaseError(
                    f"there is a knowledge base {name!r} already: choose another name, or delete "
                    f"it first with glm-rag kb delete {name}"
                )
            with (
                KnowledgeBase.open(name, home=home) as source,
                unfinished(settings, name) as temporary,
            ):
                embeddings = RememberedEmbeddings(source.embeddings_name)
                with reopen_knowledge_base(settings, temporary, embeddings, create=True) as target:
                    copy(source, target)

        yield home, finish


@contextmanager
def unfinished(settings: Settings, name: str) -> Iterator[str]:
    """A name in Milvus that no list shows; what was made there gets its own name in the end.

    So a half of a knowledge base never passes for the whole, whatever ends the process.

    Raises:
        KnowledgeBaseError: there is one of that name by then.
    """
    from glm_rag.knowledge.milvus.naming import born, delete_in, list_in

    with closing(milvus_location(settings).connect()) as milvus:
        for left in filter(_UNFINISHED.fullmatch, list_in(milvus)):
            with suppress(KnowledgeBaseNotFoundError):  # finished this moment, by somebody else
                if time.time_ns() - born(milvus, left) > _STALE_NS:
                    delete_in(milvus, left)
    temporary = f"import-{uuid.uuid4().hex}"
    try:
        yield temporary
        _rename_in_milvus(settings, temporary, name)
    except BaseException:
        with suppress(KnowledgeBaseError):
            _delete_in_milvus(settings, temporary)
        raise


def _scratch(settings: Settings) -> Path:
    settings.home.mkdir(parents=True, exist_ok=True)
    return settings.home
