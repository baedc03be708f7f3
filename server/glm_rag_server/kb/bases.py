"""`/kb` and `/kb/{name}`: which knowledge bases there are; making, renaming, deleting them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from urllib.parse import quote

from fastapi import APIRouter, Response

from glm_rag.build import info_or_error, open_knowledge_base, templates_for
from glm_rag.conversations import CONVERSATIONS_FILE, ConversationStore
from glm_rag.errors import KnowledgeBaseBusyError, KnowledgeBaseNotFoundError
from glm_rag.knowledge.naming import folder_of
from glm_rag.knowledge.uploads import uploads_of
from glm_rag.settings import Settings
from glm_rag.stores import delete_knowledge_base
from glm_rag.stores import rename_knowledge_base as rename_in
from glm_rag.types import KnowledgeBaseInfo
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

router = APIRouter(prefix="/kb")

_END_SECONDS = 30.0


@router.get("", dependencies=[READ])
def list_knowledge_bases(context: Context) -> schemas.KnowledgeBases:
    """List the knowledge bases. One that cannot be opened says why."""
    settings = context.settings
    infos = _infos(settings, context.models.knowledge_bases())
    found = [views.knowledge_base(info, settings.home) for info in infos]
    return schemas.KnowledgeBases(knowledge_bases=found)


def _infos(settings: Settings, names: Iterable[str]) -> Iterator[KnowledgeBaseInfo]:
    for name in names:
        try:
            yield info_or_error(settings, name)
        except KnowledgeBaseNotFoundError:  # deleted meanwhile
            continue


@router.post("", status_code=201, dependencies=[ADMIN])
def create_knowledge_base(
    wanted: requests.NewKnowledgeBase, context: Context, response: Response
) -> schemas.KnowledgeBase:
    """Make an empty knowledge base."""
    settings = context.settings
    name = folder_of(wanted.name, settings.home).name
    if name in context.models.knowledge_bases():
        raise taken(name)
    with open_knowledge_base(settings, name, create=True) as kb:
        info = kb.info()
    response.headers["Location"] = f"/kb/{quote(name)}"
    return views.knowledge_base(info, settings.home)


@router.get("/{name}", dependencies=[READ])
def show_knowledge_base(kb: Opened, context: Context) -> schemas.KnowledgeBase:
    """Show the totals of one knowledge base."""
    return views.knowledge_base(kb.info(), context.settings.home)


@router.patch("/{name}", dependencies=[ADMIN])
def rename_knowledge_base(
    name: Name, wanted: requests.NewKnowledgeBase, context: Context, state: TheState
) -> schemas.KnowledgeBase:
    """Give a knowledge base another name; uploads and conversations stay with it."""
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
    return views.knowledge_base(info_or_error(context.settings, new), home)


@router.delete("/{name}", dependencies=[ADMIN])
def delete(name: Name, context: Context, state: TheState) -> schemas.Deleted:
    """Delete a knowledge base, damaged or not, with all that was uploaded into it.

    Its jobs are stopped first; files it was made from on the server's disk stay.
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


@router.get("/{name}/prompt", dependencies=[READ])
def show_prompt(kb: Opened, context: Context) -> schemas.Prompt:
    """Show the words of the prompts about a knowledge base, by language."""
    templates = templates_for(context.settings, kb)
    return schemas.Prompt(templates={name: one.model_dump() for name, one in templates.items()})


@router.get("/{name}/feedback", dependencies=[ADMIN])
def list_feedback(kb: Opened, context: Context) -> schemas.Feedback:
    """Thumbs and words that answers got in the browser, with question and answer; of all users."""
    path = context.settings.home / CONVERSATIONS_FILE
    if not path.exists():
        return schemas.Feedback(feedback=[])
    with closing(ConversationStore(path)) as store:
        return schemas.Feedback(feedback=list(store.feedback(kb=kb.name)))
