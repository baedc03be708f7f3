"""`/kb` and `/kb/{name}`: which knowledge bases there are; making, renaming, deleting them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from urllib.parse import quote

from fastapi import APIRouter, Response

from glm_rag.build import info_or_error, open_knowledge_base
from glm_rag.conversations import CONVERSATIONS_FILE, ConversationStore
from glm_rag.errors import KnowledgeBaseBusyError, KnowledgeBaseNotFoundError
from glm_rag.knowledge.naming import folder_of
from glm_rag.knowledge.uploads import uploads_of
from glm_rag.settings import Settings
from glm_rag.stores import delete_knowledge_base
from glm_rag.stores import rename_knowledge_base as rename_in
from glm_rag.types import KnowledgeBaseInfo
from glm_rag_server.described import BASES, errors
from glm_rag_server.kb import requests, schemas, views
from glm_rag_server.kb.state import (
    ADMIN,
    READ,
    Context,
    Name,
    Opened,
    TheState,
    not_found,
    taken,
)

router = APIRouter(prefix="/kb", tags=[BASES], responses=errors())

_END_SECONDS = 30.0


@router.get(
    "",
    summary="List the knowledge bases",
    response_description="their totals, by name",
    responses=errors(409),
    dependencies=[READ],
)
def list_knowledge_bases(context: Context) -> schemas.KnowledgeBases:
    """One that cannot be opened says why in `error`; its totals are 0 then."""
    settings = context.settings
    infos = _infos(settings, context.models.knowledge_bases())
    found = [views.knowledge_base(info, context.hide) for info in infos]
    return schemas.KnowledgeBases(knowledge_bases=found)


def _infos(settings: Settings, names: Iterable[str]) -> Iterator[KnowledgeBaseInfo]:
    for name in names:
        try:
            yield info_or_error(settings, name)
        except KnowledgeBaseNotFoundError:  # deleted meanwhile
            continue


@router.post(
    "",
    status_code=201,
    summary="Make an empty knowledge base",
    response_description="made; `Location` says where it is",
    responses=errors(400, 408, 409, 413),
    dependencies=[ADMIN],
)
def create_knowledge_base(
    wanted: requests.NewKnowledgeBase, context: Context, state: TheState, response: Response
) -> schemas.KnowledgeBase:
    """It is filled by uploading documents into it."""
    settings = context.settings
    name = folder_of(wanted.name, settings.home).name
    if name in context.models.knowledge_bases():
        raise taken(name)
    state.jobs.check(name)  # it may be about to come about as a copy
    with open_knowledge_base(settings, name, create=True) as kb:
        info = kb.info()
    response.headers["Location"] = f"/kb/{quote(name)}"
    return views.knowledge_base(info, context.hide)


@router.get(
    "/{name}",
    summary="Show one knowledge base",
    response_description="its totals",
    responses=errors(400, 404, 409),
    dependencies=[READ],
)
def show_knowledge_base(kb: Opened, context: Context) -> schemas.KnowledgeBase:
    """How many documents, passages and failures it holds, in which languages, by which embedder."""
    return views.knowledge_base(kb.info(), context.hide)


@router.patch(
    "/{name}",
    summary="Rename a knowledge base",
    response_description="its totals, under the new name",
    responses=errors(400, 404, 408, 409, 413),
    dependencies=[ADMIN],
)
def rename_knowledge_base(
    name: Name, wanted: requests.NewKnowledgeBase, context: Context, state: TheState
) -> schemas.KnowledgeBase:
    """Uploads, conversations and the words of its prompts stay with it. While it is being written
    or has jobs, this is 409.
    """
    home = context.settings.home
    new = folder_of(wanted.name, home).name
    names = context.models.knowledge_bases()
    if name not in names:
        raise not_found(name)
    if new != name:
        if new in names:
            raise taken(new)
        with state.jobs.barred(name), state.jobs.barred(new):
            if any(not job.is_over for job in state.jobs.of(name)):
                raise KnowledgeBaseBusyError(f"jobs of {name!r} are under way: stop them first")
            context.models.forget(name)
            rename_in(context.settings, name, new)
        state.jobs.forget(name)
    return views.knowledge_base(info_or_error(context.settings, new), context.hide)


@router.delete(
    "/{name}",
    summary="Delete a knowledge base",
    response_description="the name of what is gone",
    responses=errors(400, 404, 409),
    dependencies=[ADMIN],
)
def delete(name: Name, context: Context, state: TheState) -> schemas.Deleted:
    """Damaged or not, with all that was uploaded into it. Its jobs are stopped first; files on the
    server's disk that it was made from stay.
    """
    home = context.settings.home
    if name not in context.models.knowledge_bases():
        raise not_found(name)
    with state.jobs.barred(name):
        if not state.jobs.end(name, _END_SECONDS):
            raise KnowledgeBaseBusyError(f"a job of {name!r} has not ended yet: try again later")
        context.models.forget(name)
        delete_knowledge_base(context.settings, name)
        for folder in uploads_of(name, home):
            shutil.rmtree(folder, ignore_errors=True)
    state.jobs.forget(name)
    return schemas.Deleted(deleted=name)


@router.get(
    "/{name}/feedback",
    summary="List what readers thought of answers",
    response_description="question, answer and judgement, newest last",
    responses=errors(400, 404, 409),
    dependencies=[ADMIN],
)
def list_feedback(kb: Opened, context: Context) -> schemas.Feedback:
    """Thumbs and words that answers got in the browser; of all users."""
    path = context.settings.home / CONVERSATIONS_FILE
    if not path.exists():
        return schemas.Feedback(feedback=[])
    with closing(ConversationStore(path)) as store:
        return schemas.Feedback(feedback=list(store.feedback(kb=kb.name)))
