"""`/kb/{name}/documents` and `failures`: what is in a knowledge base, what is not, and why."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import unquote

from fastapi import APIRouter, Query

from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.types import DocumentInfo
from glm_rag.types.plain import to_plain
from glm_rag_ingest.places import delete_upload
from glm_rag_server.described import DOCUMENTS, errors
from glm_rag_server.errors import ApiError
from glm_rag_server.kb import requests, schemas, views
from glm_rag_server.kb.state import READ, WRITE, Context, Opened

router = APIRouter(prefix="/kb", tags=[DOCUMENTS], responses=errors(400, 404, 409))

_FAR = 2**53
Source = Annotated[
    requests.Text, Query(description="as the list of documents gives it", max_length=10_000)
]


@router.get(
    "/{name}/documents",
    summary="List the documents",
    response_description="one page of them, and how many there are",
    dependencies=[READ],
)
def list_documents(
    kb: Opened,
    offset: Annotated[int, Query(ge=0, lt=_FAR)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    q: Annotated[
        str, Query(description="only those with this in their title or file name", max_length=1000)
    ] = "",
    language: Literal["en", "zh"] | None = None,
) -> schemas.DocumentPage:
    """By source, a page at a time; on request only those of a title, file name or language."""
    wanted = q.casefold()
    found = [
        document
        for document in kb.documents()
        if _holds(document, wanted) and language in (None, document.language)
    ]
    page = found[offset : offset + limit]
    documents = [schemas.Document.model_validate(document) for document in page]
    return schemas.DocumentPage(total=len(found), offset=offset, documents=documents)


def _holds(document: DocumentInfo, wanted: str) -> bool:
    file = unquote(document.source.rpartition("/")[2])
    return wanted in document.title.casefold() or wanted in file.casefold()


@router.get(
    "/{name}/document",
    summary="Show a document with its text",
    response_description="what is known of it, and its text",
    dependencies=[READ],
)
def show_document(
    kb: Opened,
    source: Source,
    start: Annotated[int, Query(ge=0, lt=_FAR, description="first character")] = 0,
    length: Annotated[int | None, Query(ge=0, lt=_FAR, description="default: to the end")] = None,
    passages: Annotated[bool, Query(description="its passages, too")] = False,
) -> schemas.DocumentText:
    """The text is the extracted one, to which all offsets refer; on request only a part of it."""
    info = kb.get_document(source)
    if info is None:
        raise _not_found(source)
    text = kb.get_text(source)
    chunks = kb.get_chunks(source) if passages else None
    return schemas.DocumentText(
        **to_plain(info),
        text=text[start : None if length is None else start + length],
        text_start=start,
        passages=None
        if chunks is None
        else [schemas.Passage(**views.passage(chunk)) for chunk in chunks],
    )


@router.delete(
    "/{name}/document",
    summary="Remove a document",
    response_description="the source of what is gone",
    dependencies=[WRITE],
)
def remove_document(kb: Opened, source: Source, context: Context) -> schemas.Deleted:
    """Or what is known of a file that failed. Its file goes, too, if it was uploaded; any other
    stays.
    """
    if not _knows(kb, source):
        raise _not_found(source)
    kb.remove(source)
    delete_upload(source, kb.name, context.settings.home)
    return schemas.Deleted(deleted=source)


def _knows(kb: KnowledgeBase, source: str) -> bool:
    return kb.get_document(source) is not None or any(
        failure.source == source for failure in kb.failures()
    )


@router.get(
    "/{name}/failures",
    summary="List the files that could not be read",
    response_description="all of them, by source",
    dependencies=[READ],
)
def list_failures(kb: Opened) -> schemas.Failures:
    """And why; a `permanent` failure comes again with the same bytes."""
    found = [schemas.Failure.model_validate(failure) for failure in kb.failures()]
    return schemas.Failures(failures=found)


def _not_found(source: str) -> ApiError:
    return ApiError(
        404,
        f"there is no document {source!r}: GET .../documents lists those there are",
        param="source",
        code="document_not_found",
    )
