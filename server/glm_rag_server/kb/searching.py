"""`POST /kb/{name}/search`: what a question finds, with scores, and why."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from glm_rag.build import build_retriever
from glm_rag.retrieval.explain import explain
from glm_rag_server.kb import requests, schemas, views
from glm_rag_server.kb.state import READ, Context, Opened, TheState

router = APIRouter(prefix="/kb")


@router.post("/{name}/search", dependencies=[READ])
def search(
    wanted: requests.SearchRequest, kb: Opened, context: Context, state: TheState
) -> schemas.SearchResult:
    """Find passages as an answer would, without answering."""
    change: dict[str, Any] = {"reranker": state.reranker(context, kb)}
    if wanted.filter is not None:
        change["filter"] = wanted.filter
    retriever = build_retriever(context.settings, kb).model_copy(update=change)
    explanation = None
    if wanted.explain:
        found = explain(retriever, wanted.query, wanted.k)
        hits, explanation = found.final, views.explanation(found)
    else:
        hits = tuple(retriever.search(wanted.query, wanted.k))
    passages = [views.found_passage(rank, hit) for rank, hit in enumerate(hits, start=1)]
    return schemas.SearchResult(passages=passages, explanation=explanation)
