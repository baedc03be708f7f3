"""What a knowledge base holds, and what was done to it or found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class KnowledgeBaseInfo:
    """Totals of a knowledge base.

    `error` says why it cannot be opened, in one line, and is empty otherwise; the totals are
    then 0.
    """

    name: str
    path: str
    num_documents: int
    num_chunks: int
    num_failures: int
    embeddings: str
    dimension: int
    size_bytes: int
    languages: Mapping[str, int] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class IngestFailure:
    """Why one source is not in the knowledge base.

    Attributes:
        stage: `discover | load | split | embed | store`.
        error: one line, reason first (`encrypted: ...`).
        permanent: the same bytes will fail again.
        fingerprint: the bytes and the parser that failed; while it stays the same and the
            failure is permanent, the source is not tried again. Empty: always try.
    """

    source: str
    stage: str
    error: str
    permanent: bool
    fingerprint: str = ""


IngestAction = Literal["added", "updated", "resplit", "copied", "removed", "failed"]


@dataclass(frozen=True, slots=True)
class IngestChange:
    """What a run did to one file, or would do.

    Attributes:
        action: `added` and `updated` were read; `resplit` was cut again from the stored text;
            `copied` has the bytes of another file, so nothing is stored twice.
        num_chunks: passages the file has now, those of its members included.
    """

    source: str
    action: IngestAction
    num_chunks: int = 0


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """Where an ingestion run stands.

    Attributes:
        done, total: files. bytes_done, bytes_total: bytes of those files.
        current: the file that was last read or stored, empty when the run is over.
        num_chunks: passages stored so far. seconds: since the run began.
        num_embedded: passages whose vectors were computed.
        rate: passages embedded per second, of late.
        seconds_left: estimate from the rate and the passages per byte so far; None before any.
    """

    done: int
    total: int
    bytes_done: int
    bytes_total: int
    current: str
    num_chunks: int
    seconds: float
    num_embedded: int = 0
    rate: float = 0.0
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one ingestion run did, in documents.

    `num_skipped` counts what has not changed and was not read again; `num_failed_before` says how
    many of those failed in an earlier run. They are not in `failures`.

    Attributes:
        num_added, num_updated: files; a file with members counts once.
        num_chunks: passages stored. num_embedded: of those, how many vectors were computed and
            not found again.
        num_copies: of the added and updated, those with the bytes of another file.
        num_resplit: of the updated, those cut again from the stored text.
        changes: one for every file that was not skipped, in the order it happened.
        interrupted: stopped before the end; the next run goes on.
    """

    num_added: int = 0
    num_updated: int = 0
    num_skipped: int = 0
    num_deleted: int = 0
    failures: tuple[IngestFailure, ...] = ()
    num_chunks: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    num_failed_before: int = 0
    num_embedded: int = 0
    num_copies: int = 0
    num_resplit: int = 0
    changes: tuple[IngestChange, ...] = ()
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class VerifyFinding:
    """One thing in a knowledge base that is not as it should be.

    Attributes:
        check: `database | document | chunk | vector | keywords | totals | index | citation`.
        source: of the document it concerns; empty where it concerns all.
        problem: one line. mend: what to do about it, a command where there is one.
    """

    check: str
    source: str
    problem: str
    mend: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check of everything in a knowledge base found; nothing is expected.

    Attributes:
        num_findings: all of them; `findings` holds at most the first thousand.
        num_citations: of a saved answer, where one was checked instead of everything.
    """

    name: str
    num_documents: int
    num_chunks: int
    num_findings: int
    findings: tuple[VerifyFinding, ...]
    seconds: float
    num_citations: int | None = None


@dataclass(frozen=True, slots=True)
class WarmReport:
    """Passages of a knowledge base read ahead of time; also where such a run stands.

    Attributes:
        num_passages: that fit the budget. num_present: of those, on disk before.
        num_read: computed and written now. num_tokens: of the passages to read, prompt included.
        bytes_used: of what is on disk of them. bytes_needed: of all that fit the budget.
        seconds: since the run began. seconds_left: estimate from the speed so far.
    """

    num_passages: int
    num_present: int
    num_read: int
    num_tokens: int
    bytes_used: int
    bytes_needed: int
    seconds: float
    seconds_left: float
