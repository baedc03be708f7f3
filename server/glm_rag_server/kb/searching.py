"""`POST /kb/{name}/search`: what a question finds, with scores, and why."""

from __future__ import annotations

from fastapi import APIRouter

from glm_rag.retrieval.explain import explain
from glm_rag_server.described import CARE, errors
from glm_rag_server.kb import requests, schemas, views
from glm_rag_server.kb.state import READ, Context, Opened

router = APIRouter(prefix="/kb", tags=[CARE], responses=errors(400, 404, 408, 409, 413, 503))


@router.post(
    "/{name}/search",
    summary="Find passages for a question",
    response_description="passages, best first",
    dependencies=[READ],
)
def search(wanted: requests.SearchRequest, kb: Opened, context: Context) -> schemas.SearchResult:
    """As an answer would, without answering; on request with every candidate and its places."""
    retriever = context.models.retriever(kb.name)
    if wanted.filter is not None:
        retriever = retriever.model_copy(update={"filter": wanted.filter})
    explanation = None
    if wanted.explain:
        found = explain(retriever, wanted.query, wanted.k)
        hits, explanation = found.final, views.explanation(found)
    else:
        hits = tuple(retriever.search(wanted.query, wanted.k))
    passages = [views.found_passage(rank, hit) for rank, hit in enumerate(hits, start=1)]
    return schemas.SearchResult(passages=passages, explanation=explanation)
