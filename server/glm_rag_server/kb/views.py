"""Values of glm-rag as the schemas of `/kb`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glm_rag.retrieval.explain import Explained, Explanation
from glm_rag.types import KnowledgeBaseInfo, ScoredDocument
from glm_rag.types.plain import to_plain
from glm_rag_server.errors import Hide
from glm_rag_server.kb import schemas
from glm_rag_server.kb.job import Job

if TYPE_CHECKING:
    from langchain_core.documents import Document


def knowledge_base(info: KnowledgeBaseInfo, hide: Hide) -> schemas.KnowledgeBase:
    """Totals; where it lies is left out."""
    return schemas.KnowledgeBase(**{**to_plain(info), "error": hide(info.error)})


def job(found: Job, hide: Hide) -> schemas.Job:
    """A job as it stands now."""
    live = found.live
    result = found.result if found.result is not None or live is None else live()
    return schemas.Job(
        id=found.id,
        knowledge_base=found.kb,
        kind=found.kind,
        state=found.state,
        stopping=found.is_stopping and not found.is_over,
        created_at=found.created_at,
        started_at=found.started_at,
        ended_at=found.ended_at,
        files=[schemas.UploadedFile.model_validate(file) for file in found.files],
        progress=None if found.progress is None else schemas.Progress(**found.progress),
        waits_for=found.waits_for,
        result=None if result is None else dict(result),
        error=hide(found.error),
    )


def passage(document: Document) -> dict[str, Any]:
    """The fields of a passage. Texts that came without a file have any metadata."""
    metadata: dict[str, Any] = to_plain(document.metadata)
    numbers = {name: metadata.get(name) for name in ("page", "start", "end")}
    headings = metadata.get("headings")
    return {
        "id": document.id,
        "text": document.page_content,
        "source": str(metadata.get("source") or ""),
        "title": str(metadata.get("title") or ""),
        "headings": [str(part) for part in headings] if isinstance(headings, list) else [],
        "metadata": metadata,
        **{name: value if isinstance(value, int) else None for name, value in numbers.items()},
    }


def found_passage(rank: int, found: ScoredDocument) -> schemas.FoundPassage:
    """A passage that a question has found."""
    evidence = found.document.metadata.get("evidence")
    return schemas.FoundPassage(
        **passage(found.document),
        rank=rank,
        score=float(found.score),
        evidence=None if evidence is None else float(evidence),
    )


def explanation(found: Explanation) -> schemas.Explanation:
    """Why a question finds what it finds."""
    return schemas.Explanation(
        language=found.language,
        terms=dict(found.terms),
        candidates=[_candidate(item) for item in found.candidates],
        nothing=found.nothing,
    )


def _candidate(item: Explained) -> schemas.Candidate:
    names = ("fused_rank", "score", "dense_rank", "cosine", "sparse_rank", "bm25", "evidence")
    places = {name: to_plain(getattr(item, name)) for name in names}
    return schemas.Candidate(**passage(item.document), **places, terms=item.terms)
