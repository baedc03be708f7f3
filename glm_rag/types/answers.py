"""Values of answers: passages, citations, and the reports of how they came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from glm_rag.types.generation import ChatTurn, FinishReason, Usage

if TYPE_CHECKING:
    from langchain_core.documents import Document


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
        timings: seconds by step: `retrieve`, `pack`, `prompt`, `first_token`, `generate`, `cite`,
            `total`.
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
    """A piece of a streamed answer; the last one carries the whole `Answer`.

    `citations` and `unsupported` are those of the sentences that this piece completed, in order;
    all pieces together hold those of the `Answer`, unless that had to leave out a loop. Offsets
    are those of the whole text. A sentence is complete when the next one has begun, or the answer
    is; its end may therefore lie in an earlier piece, with only white space or the number of a
    list item behind it.
    """

    text: str
    answer: Answer | None = None
    citations: tuple[Citation, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()
