"""What `/kb` gives, as the OpenAPI page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from glm_rag_server.kb.job import Kind, State


class _Given(BaseModel):
    model_config = ConfigDict(extra="ignore", from_attributes=True)


class KnowledgeBase(_Given):
    """Totals; where `error` says why one cannot be opened, they are 0."""

    name: str
    num_documents: int
    num_chunks: int
    num_failures: int
    embeddings: str
    dimension: int
    size_bytes: int
    languages: dict[str, int]
    error: str = ""


class KnowledgeBases(_Given):
    """All of them, by name."""

    knowledge_bases: list[KnowledgeBase]


class Deleted(_Given):
    """What is gone."""

    deleted: str


class Document(_Given):
    """What is known of a document. `source` is what it is asked for by."""

    source: str
    title: str
    media_type: str
    language: str
    size: int
    mtime: float
    added_at: float
    sha256: str
    num_chunks: int
    num_characters: int
    warnings: Sequence[str] = ()
    container: str = Field("", description="the archive or mail that holds it")
    copies: Sequence[str] = Field((), description="other files with the same bytes")


class DocumentPage(_Given):
    """Documents `[offset, offset + limit)` of `total`, by source."""

    total: int
    offset: int
    documents: list[Document]


class Passage(_Given):
    """A piece of a document; `[start, end)` are characters of its extracted text."""

    id: str | None
    text: str
    source: str
    title: str
    page: int | None = None
    headings: Sequence[str] = ()
    start: int | None = None
    end: int | None = None
    metadata: dict[str, Any]


class DocumentText(Document):
    """A document with its text, or the part of it that was asked for."""

    text: str
    text_start: int
    passages: list[Passage] | None = None


class Failure(_Given):
    """A file that could not be read, and why; `permanent`: the same bytes will fail again."""

    source: str
    stage: str
    error: str
    permanent: bool


class Failures(_Given):
    """All of a knowledge base, by source."""

    failures: list[Failure]


class FoundPassage(Passage):
    """With its rank from 1, and its score; `evidence` of 0 or more: enough to answer from."""

    rank: int
    score: float
    evidence: float | None = None


class Candidate(Passage):
    """Where a passage stood in each list."""

    fused_rank: int
    score: float
    dense_rank: int
    cosine: float
    sparse_rank: int | None
    bm25: float
    evidence: float | None
    terms: Sequence[str]


class Explanation(_Given):
    """Why these passages: the question's terms with their weight, and all candidates."""

    language: str
    terms: dict[str, float]
    candidates: list[Candidate]
    nothing: Literal["", "small_talk", "no_terms"] = ""


class SearchResult(_Given):
    """Passages, best first."""

    passages: list[FoundPassage]
    explanation: Explanation | None = None


class Progress(_Given):
    """How far a job is: files of an ingestion, passages of everything else."""

    step: str
    done: int
    total: int
    bytes_done: int | None = None
    bytes_total: int | None = None
    current: str = ""
    num_chunks: int | None = None
    num_embedded: int | None = None
    rate: float | None = Field(None, description="passages embedded per second")
    seconds_left: float | None = None


class UploadedFile(_Given):
    """A file that was sent: its name then, and the source of its document."""

    name: str
    source: str


class Job(_Given):
    """Work that takes longer than a request."""

    id: str
    knowledge_base: str
    kind: Kind
    state: State
    stopping: bool
    created_at: float
    started_at: float | None
    ended_at: float | None
    files: list[UploadedFile]
    progress: Progress | None
    waits_for: str = Field(
        description="while something keeps it from going on: another process that writes, answers"
    )
    result: dict[str, Any] | None = Field(
        description="what it has done so far or in all: counts, failures, findings"
    )
    error: str = Field(description="why it failed, in one line")


class JobList(_Given):
    """The jobs of a knowledge base that are remembered, newest first."""

    jobs: list[Job]


class Finding(_Given):
    """One thing that is not as it should be, and what mends it."""

    check: str
    source: str
    problem: str
    mend: str


class CitationsChecked(_Given):
    """Those citations that no longer open to their quote; none is expected."""

    num_citations: int
    findings: list[Finding]


class Feedback(_Given):
    """What readers of the page thought of answers."""

    feedback: list[dict[str, Any]]


class Prompt(_Given):
    """Texts by language and key, as in configs/prompts/prompt.yaml."""

    templates: dict[str, dict[str, Any]] = Field(description="those in force")
    own: dict[str, Any] = Field(description="those that the knowledge base changes of them")
