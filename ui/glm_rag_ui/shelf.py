"""What the pages read of knowledge bases, kept while nothing changes, and what they do to them."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import streamlit as st

from glm_rag.errors import ConfigError, KnowledgeBaseError, KnowledgeBaseNotFoundError
from glm_rag.settings import Settings
from glm_rag.types import DocumentInfo, KnowledgeBaseInfo
from glm_rag_ui import backend, session
from glm_rag_ui.runs import SHARED

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.knowledge.projection import Plane
    from glm_rag.knowledge.sampling import Sketch
    from glm_rag.retrieval.explain import Explanation

SAMPLE = 2000

Value = TypeVar("Value")
Picture = tuple[list["Sketch"], np.ndarray, "Plane"]


# ---------------------------------------------------------------- reading


def infos(settings: Settings) -> list[KnowledgeBaseInfo]:
    """Totals of all knowledge bases; those that cannot be opened say why."""
    found = []
    for name in backend.list_knowledge_bases(settings):
        try:
            key = f"{_stamp(settings, name)} {settings.embeddings.model_dump_json()}"
            found.append(_info(key, name, settings))
        except KnowledgeBaseNotFoundError:  # deleted meanwhile
            continue
    return found


def documents(settings: Settings, kb: str) -> list[DocumentInfo]:
    """All documents, by source."""
    return _kept("documents", settings, kb, lambda opened: opened.documents())


def chunks(settings: Settings, kb: str, source: str) -> list[Document]:
    """The passages of a document in order."""
    return _kept(f"chunks {source}", settings, kb, lambda opened: opened.get_chunks(source))


def picture(settings: Settings, kb: str) -> Picture:
    """A sample of the passages, their places `[N, 2]`, and the plane these lie on."""
    return _kept("picture", settings, kb, _picture)


def hits_on_map(
    settings: Settings, kb: str, question: str, k: int
) -> list[tuple[Sketch, np.ndarray]]:
    """What a question finds, best first, with each one's place `[2]` on the picture.

    Raises:
        GlmRagError: as `HybridRetriever.search`.
    """
    from glm_rag.build import build_retriever
    from glm_rag.knowledge.sampling import Sketch

    opened = session.knowledge_base(settings, kb)
    found = [hit.document for hit in build_retriever(settings, opened).search(question, k)]
    vectors = opened.vectors_of([document.id for document in found if document.id])
    plane = picture(settings, kb)[2]
    return [
        (
            Sketch(
                document.id or "",
                str(document.metadata.get("source", "")),
                str(document.metadata.get("title", "")),
                document.metadata.get("page"),
                document.page_content,
            ),
            plane.place(vectors[document.id]),
        )
        for document in found
        if document.id in vectors
    ]


def explained(
    settings: Settings, kb: str, question: str, k: int, where: Mapping[str, Any] | None
) -> Explanation:
    """What a question finds and why; `where` takes the place of the settings' own filter.

    Raises:
        GlmRagError: as `HybridRetriever.search`.
    """
    from glm_rag.build import build_retriever
    from glm_rag.retrieval.explain import explain

    retriever = build_retriever(settings, session.knowledge_base(settings, kb))
    if where is not None:
        retriever = retriever.model_copy(update={"filter": where})
    return explain(retriever, question, k)


def asked(
    settings: Settings, kb: str, question: str, k: int, where: Mapping[str, Any] | None
) -> str:
    """The same for questions that `explained` answers alike."""
    change = session.knowledge_base(settings, kb).change()
    identity = backend.identity(settings, kb)
    return repr((settings.model_dump_json(), kb, identity, change, question, k, where))


def _picture(opened: KnowledgeBase) -> Picture:
    from glm_rag.knowledge.projection import principal_plane

    sketches, vectors = opened.sketch_passages(SAMPLE)
    plane = principal_plane(vectors if len(vectors) else np.zeros((1, 1)))
    return sketches, plane.place(vectors) if len(vectors) else np.zeros((0, 2)), plane


def _kept(what: str, settings: Settings, kb: str, read: Callable[[KnowledgeBase], Value]) -> Value:
    """What `read` gives, from memory as long as the passages of `kb` are the same."""
    opened = session.knowledge_base(settings, kb)
    identity = f"{settings.home} {kb} {backend.identity(settings, kb)} {opened.change()}"
    value: Value = _read(what, identity, opened, read)
    return value


# The underscore keeps Streamlit from hashing the objects: `identity` tells them apart. What is
# kept is shared by all sessions and must not be changed.
@st.cache_resource(show_spinner=False, max_entries=64)
def _read(
    what: str, identity: str, _opened: KnowledgeBase, _read_it: Callable[[KnowledgeBase], Any]
) -> Any:
    return _read_it(_opened)


@st.cache_resource(show_spinner=False, max_entries=256)
def _info(key: str, name: str, _settings: Settings) -> KnowledgeBaseInfo:
    from glm_rag.build import info_or_error

    return info_or_error(_settings, name)


def _stamp(settings: Settings, name: str) -> str:
    """Changes whenever something is written into a knowledge base; a folder is not opened."""
    if settings.store.backend == "milvus":
        return _stamp_in_milvus(settings, name)
    from glm_rag.knowledge.database import FILE_NAME
    from glm_rag.knowledge.naming import folder_of

    parts: list[Any] = [str(settings.home), name]
    for suffix in ("", "-wal"):
        try:
            status = (folder_of(name, settings.home) / f"{FILE_NAME}{suffix}").stat()
            parts += [status.st_ino, status.st_size, status.st_mtime_ns]
        except OSError:
            parts.append(None)
    return repr(parts)


def _stamp_in_milvus(settings: Settings, name: str) -> str:
    try:
        opened = session.knowledge_base(settings, name)
        state: Any = (backend.identity(settings, name), opened.change(), len(opened.failures()))
    except KnowledgeBaseNotFoundError:
        raise
    except KnowledgeBaseError:  # said as it is now, every time
        state = uuid.uuid4()
    return repr((settings.store.uri, settings.store.database, name, state))


# ---------------------------------------------------------------- changing


def is_name(settings: Settings, name: str) -> bool:
    """Whether a knowledge base can be called so."""
    from glm_rag.knowledge.naming import folder_of

    try:
        folder_of(name, settings.home)
    except ConfigError:
        return False
    return True


def create(settings: Settings, name: str) -> None:
    """Make an empty knowledge base.

    Raises:
        ConfigError: not a name. KnowledgeBaseError: there is one of that name, no permission.
    """
    from glm_rag.knowledge.naming import folder_of

    if folder_of(name, settings.home).name in backend.list_knowledge_bases(settings):
        raise KnowledgeBaseError(
            f"there is a knowledge base {name!r} already: choose another name, or delete it first"
        )
    backend.open_knowledge_base(settings, name, create=True).close()


def rename(settings: Settings, old: str, new: str) -> None:
    """Give a knowledge base another name; errors as `glm_rag.stores.rename_knowledge_base`."""
    from glm_rag.stores import rename_knowledge_base

    if new != old:
        rename_knowledge_base(settings, old, new)
        SHARED.dismiss(settings.home, old)


def delete(settings: Settings, name: str) -> None:
    """Delete a knowledge base and all that was uploaded into it, read or not.

    Raises:
        KnowledgeBaseError: somebody is writing into it, or no permission.
    """
    from glm_rag.knowledge.uploads import uploads_of
    from glm_rag.stores import delete_knowledge_base

    delete_knowledge_base(settings, name)
    for folder in uploads_of(name, settings.home):
        shutil.rmtree(folder, ignore_errors=True)
    SHARED.dismiss(settings.home, name)


def remove(settings: Settings, kb: str, source: str) -> None:
    """Remove a document; a file that was uploaded here goes, too, all others stay."""
    session.knowledge_base(settings, kb).remove(source)
    _delete_upload(settings, kb, source)


def forget_failure(settings: Settings, kb: str, source: str) -> None:
    """Take a failure off the list; its file goes if it was uploaded here and is in no document."""
    opened = session.knowledge_base(settings, kb)
    opened.clear_failure(source)
    if opened.get_document(source) is None:
        _delete_upload(settings, kb, source)


def uploaded_file(settings: Settings, kb: str, source: str) -> Path | None:
    """The file of a source if the page keeps it among the uploads of this knowledge base."""
    from glm_rag_ingest.places import uploaded_file as file_in

    return file_in(source, kb, settings.home)


def file_of(source: str) -> Path | None:
    """The file a document was read from; of a member, the archive or mail."""
    from glm_rag_ingest.prune import path_of

    return path_of(source)


def _delete_upload(settings: Settings, kb: str, source: str) -> None:
    from glm_rag_ingest.places import delete_upload

    delete_upload(source, kb, settings.home)


# ---------------------------------------------------------------- folders of the server


def bounds(settings: Settings, path: Path) -> tuple[Path, ...]:
    """The folders in which a known file must still really lie to be read again.

    Empty, that is anywhere, for one that the owner of the computer added in a terminal. A file
    in a folder that visitors may read could be a link by now.
    """
    folders = (*settings.ui.allowed_folders, settings.home / "uploads")
    places = {place for folder in folders for place in (folder, Path(os.path.realpath(folder)))}
    return folders if any(path.is_relative_to(place) for place in places) else ()
