"""`/kb`: everything `glm-rag kb` and `glm-rag ingest` do, over HTTP; see docs/server-kb.md."""

from __future__ import annotations

from fastapi import APIRouter

from glm_rag_server.kb import (
    adding,
    bases,
    care,
    documents,
    job_routes,
    moving,
    prompts,
    searching,
)
from glm_rag_server.kb.state import jobs_until_the_end

router = APIRouter(lifespan=jobs_until_the_end)
# In the order in which the page shows them.
for part in (bases, moving, prompts, adding, documents, searching, care, job_routes):
    router.include_router(part.router)
