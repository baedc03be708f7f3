"""`/kb`: everything `glm-rag kb` and `glm-rag ingest` do, over HTTP; see docs/server-kb.md."""

from __future__ import annotations

from fastapi import APIRouter

from glm_rag_server.kb import adding, bases, care, documents, job_routes, searching
from glm_rag_server.kb.state import jobs_until_the_end

router = APIRouter(lifespan=jobs_until_the_end)
for part in (care, bases, adding, documents, job_routes, searching):
    router.include_router(part.router)
