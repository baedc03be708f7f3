"""Frozen values that cross the borders between folders. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from glm_rag.errors import ConfigError

if TYPE_CHECKING:
    from langchain_core.documents import Document

# repetition: the answer began to say the same thing over and over, so it was ended.
FinishReason = Literal["stop", "length", "repetition"]
Role = Literal["system", "user", "assistant"]
Language = Literal["en", "zh"]


# ---------------------------------------------------------------- generation


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. Defaults are those of the published model's `chat()`.

    Order of application: repetition penalty, temperature, top-k, top-p, as in transformers.

    Attributes:
        max_tokens: most tokens to generate.
        temperature: 0 means greedy.
        top_k: keep the k most likely tokens; 0 turns it off.
        top_p: keep the smallest set with at least this probability mass, in (0, 1].
        repetition_penalty: divides positive and multiplies negative logits of tokens already
            in prompt or answer (CTRL, arXiv 1909.05858); 1 turns it off.
        seed: makes sampling repeatable; None draws a fresh one.
        stop: strings that end the answer and are not part of it.
        speculate: guess tokens from prompt and answer and verify several in one pass. Changes
            no answer but by rounding, where two tokens are as good as equally likely.
        loop_guard: end an answer that repeats itself, with finish reason `repetition`.
    """

    max_tokens: int = 1024
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 0.8
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    speculate: bool = True
    loop_guard: bool = True

    def __post_init__(self) -> None:
        checks = {
            f"max_tokens must be at least 1, got {self.max_tokens}": self.max_tokens >= 1,
            f"temperature must be 0 or more, got {self.temperature}": self.temperature >= 0,
            f"top_k must be 0 or more, got {self.top_k}": self.top_k >= 0,
            f"top_p must be in (0, 1], got {self.top_p}": 0 < self.top_p <= 1,
            f"repetition_penalty must be above 0, got {self.repetition_penalty}": (
                self.repetition_penalty > 0
            ),
            "stop strings must not be empty": all(self.stop),
        }
        for message, holds in checks.items():
            if not holds:
                raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one generation, by the model's own tokenizer.

    Attributes:
        cached_tokens: of the prompt, not computed again.
        drafted_tokens, accepted_tokens: guessed by speculation, and those that came true.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class GenerationDelta:
    """What one step added. `finish_reason` and `usage` are set on the last one only.

    `text` may be empty (a token that ends inside a character or a possible stop string);
    joining all texts gives the answer.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """What an engine may keep of the sequences it computed.

    Attributes:
        memory_bytes: of KV caches kept in memory.
        disk_bytes: of those in files under `folder`; nothing is written without a folder.
    """

    memory_bytes: int
    disk_bytes: int = 0
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One message of a conversation, in the words of a chat model.

    `token_ids` are the ids the model itself generated for an assistant turn. Kept ids let the
    next prompt continue the same sequence: encoding the text again gives other ids.

    A user turn that was answered from documents keeps what the model read: `prompt` stands in
    the place of `text`, and `passages` are those that it shows.
    """

    role: Role
    text: str
    token_ids: tuple[int, ...] | None = None
    prompt: str | None = field(default=None, repr=False, metadata={"json": False})
    passages: tuple[Passage, ...] = field(default=(), repr=False, metadata={"json": False})


# ---------------------------------------------------------------- documents


@dataclass(frozen=True, slots=True)
class PageSpan:
    """Characters `[start, end)` of the extracted text that stand on page `number` (from 1)."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ExtractedDocument:
    """One source turned into text. All offsets elsewhere refer to `text`.

    Attributes:
        source: URI of the file (`Path.as_uri()`) or any stable identifier.
        title: the document's own title, else its file name.
        text: extracted text, line ends as `\n`.
        sha256: hex digest of the source's bytes.
        size: bytes. mtime: seconds since the epoch, 0 where there is no file.
        pages: spans in order; empty for formats without pages.
        warnings: what was lost while reading (a page without text, say).
        container: source of the archive or mail that holds it; empty for a file of its own.
    """

    source: str
    title: str
    text: str
    sha256: str
    size: int
    mtime: float
    media_type: str
    parser_version: str
    pages: tuple[PageSpan, ...] = ()
    warnings: tuple[str, ...] = ()
    container: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an extracted document; `text == document.text[start:end]` always holds.

    Attributes:
        headings: path of headings above the chunk; put before the text for embedding.
        table_header: the header rows of the table in whose middle the chunk begins; put before
            the text for embedding and for the model, never part of `text`.
        section: characters `[start, end)` of the document that form the section around it.
    """

    start: int
    end: int
    text: str
    page: int | None = None
    headings: tuple[str, ...] = ()
    table_header: str = ""
    section: tuple[int, int] | None = None

    @property
    def embedding_text(self) -> str:
        """What is embedded and counted against the token limit: headings, header, text."""
        path = " > ".join(self.headings)
        return "\n".join(part for part in (path, self.table_header, self.text) if part)

    @property
    def content_hash(self) -> str:
        """SHA-256 of the chunk's text, hex."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    def id_for(self, source: str) -> str:
        """Deterministic chunk id: the same source, start and content give the same id."""
        return chunk_id(source, self.start, self.content_hash)


def chunk_id(source: str, start: int, content_hash: str) -> str:
    """The id of the chunk of `source` that begins at `start` and has this content."""
    key = f"{source}\0{start}\0{content_hash}"
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """What a knowledge base keeps about one document.

    `copies` are the sources of other files with the same bytes; `container` is the archive or mail
    that holds it.
    """

    source: str
    title: str
    sha256: str
    size: int
    mtime: float
    media_type: str
    parser_version: str
    language: Language
    num_chunks: int
    num_characters: int
    added_at: float
    warnings: tuple[str, ...] = ()
    container: str = ""
    copies: tuple[str, ...] = ()


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


# ---------------------------------------------------------------- answers


@dataclass(frozen=True, slots=True)
class ScoredDocument:
    """A chunk with its score; higher is better. `retriever` names what found it."""

    document: Document
    score: float
    retriever: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A packed passage, numbered from 1 as in the prompt.

    `text` is what the model reads of `document`; it is shorter only where `truncated`. Offsets
    refer to it alone: `table_header` is shown above it and is no part of it.
    """

    index: int
    document: Document
    text: str
    num_tokens: int
    truncated: bool = False

    @property
    def table_header(self) -> str:
        """The header of the table in whose middle the passage begins; empty for most."""
        return str(self.document.metadata.get("table_header") or "")


@dataclass(frozen=True, slots=True)
class PackedContext:
    """The passages that entered the window, best first, and what was left out.

    In a follow-up the passages that earlier rounds of the prompt show come first; `num_tokens`
    counts the new ones.
    """

    passages: tuple[Passage, ...]
    num_tokens: int
    budget: int
    num_dropped: int


@dataclass(frozen=True, slots=True)
class WindowReport:
    """How the context window of one answer was spent, in tokens of the language model.

    `system + history + sum(passages) + question` is exactly the length of the prompt.

    Attributes:
        size: of the window. reserve: kept for the answer.
        system: fixed text and example, with the marks of the prompt format.
        history: earlier rounds, the passages that they show included.
        passages: those that this prompt adds, in its order.
        free: neither read nor reserved.
        rounds_left_out: earlier rounds that no longer fit. rounds_shortened: those that stay
            without their passages.
        passages_left_out: distinct chunks found that did not enter.
    """

    size: int
    reserve: int
    system: int
    history: int
    passages: tuple[int, ...]
    question: int
    free: int
    rounds_left_out: int = 0
    rounds_shortened: int = 0
    passages_left_out: int = 0


@dataclass(frozen=True, slots=True)
class Citation:
    """One part of the answer and the characters that support it.

    Attributes:
        index: number of the passage it comes from.
        answer_start, answer_end: character span in `Answer.text`.
        start, end: character span of `quote` in the document's extracted text.
        quote: the sentence or two that support the answer's.
        support: `verbatim` when a long run of the answer's words stands in the quote, else
            `paraphrase`.
    """

    index: int
    answer_start: int
    answer_end: int
    chunk_id: str
    source: str
    title: str
    page: int | None
    start: int
    end: int
    quote: str
    support: Literal["verbatim", "paraphrase"]


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Characters `[start, end)` of an answer that no passage supports.

    `kind` is `sentence`: nothing in the passages says it; or `number`: a number, date or amount
    that stands, with its unit, in none of them and not in the question.
    """

    start: int
    end: int
    kind: Literal["sentence", "number"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer.

    Attributes:
        text: what was streamed; after a loop (`finish_reason` repetition) the repeated part once.
        timings: seconds by step: `retrieve`, `pack`, `first_token`, `generate`, `cite`, `total`.
        abstained: no evidence was found, so `text` says so and `citations` is empty.
        reason: why it abstained; empty otherwise.
        messages: the conversation up to and including this answer; pass the `Answer` as
            `history` to go on.
        nearest: the best passages found, where it abstained.
        search_question: what was searched for; a follow-up carries the question before it.
        unsupported: sentences and numbers of the text that no passage supports, in order.
        trace: what happened on the way: `search_question_by` (`as asked | rule | model`) and
            `rewrite_note`; `passages_found`, `passages_packed`, `passages_shown_before` and
            `passages_dropped`; `evidence`, the margin of the best passage (None: not measured);
            `decision` (`answered`, or who declined).
        window: how the context window was spent; None where the model was not asked.
    """

    text: str
    citations: tuple[Citation, ...]
    context: PackedContext
    usage: Usage
    timings: Mapping[str, float]
    finish_reason: FinishReason
    abstained: bool
    question: str = ""
    reason: str = ""
    messages: tuple[ChatTurn, ...] = ()
    nearest: tuple[ScoredDocument, ...] = ()
    search_question: str = ""
    unsupported: tuple[Unsupported, ...] = ()
    trace: Mapping[str, str | int | float | None] = field(default_factory=dict)
    window: WindowReport | None = None

    @property
    def supported(self) -> bool:
        """Whether at least one sentence of the text stands in the documents."""
        return bool(self.citations)


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """A piece of a streamed answer; the last one carries the whole `Answer`."""

    text: str
    answer: Answer | None = None
