"""One question on its way to an answer: what is known so far, and the answer made of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from glm_rag.engine.loop_guard import TextLoopGuard, without_loop
from glm_rag.grounding import REFUSAL_SENTENCE, is_refusal, refusal
from glm_rag.marking import Marker
from glm_rag.messages import TOKEN_IDS
from glm_rag.prompting import build_turns, render_passages
from glm_rag.types import (
    Answer,
    AnswerDelta,
    ChatTurn,
    Citation,
    FinishReason,
    Language,
    PackedContext,
    Passage,
    ScoredDocument,
    Unsupported,
    Usage,
    WindowReport,
)

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.messages import BaseMessage

    from glm_rag.counting import TokenCounter
    from glm_rag.rewriting import SearchQuestion
    from glm_rag.templates import Template

_NUM_NEAREST = 3
# Told of each part of a step when it is over: its name, start and end in ns since 1970. For traces.
on_step: ContextVar[Callable[[str, int, int], None] | None] = ContextVar("on_step", default=None)
_NO_CONTEXT = PackedContext(passages=(), num_tokens=0, budget=0, num_dropped=0)


@dataclass(slots=True)
class AnswerRun:
    """State of one answer. `context` and `reason` are filled on the way; texts only grow.

    Attributes:
        conversation: all turns before. answered: those without the declined questions.
        history: the end of `answered` that goes along.
        searched: the question as it is searched for, and who made it so.
        prompt: the user turn as the model reads it; None while it is not asked.
        added: passages that this turn shows, the end of `context.passages`.
    """

    question: str
    language: Language
    template: Template
    conversation: tuple[ChatTurn, ...]
    answered: tuple[ChatTurn, ...]
    searched: SearchQuestion
    counter: TokenCounter
    window: int
    reserve: int
    history: tuple[ChatTurn, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)
    documents: Sequence[Document] = ()
    context: PackedContext = _NO_CONTEXT
    prompt: str | None = None
    added: tuple[Passage, ...] = ()
    reason: str = ""
    text: str = ""
    token_ids: tuple[int, ...] | None = None
    usage: Usage | None = None
    finish_reason: FinishReason = "stop"
    num_prompt_tokens: int = 0
    report: WindowReport | None = None
    # What of the text is marked, and how many of the marks were handed out; None before the
    # passages are chosen.
    marker: Marker | None = None
    num_told: tuple[int, int] = (0, 0)
    # For models that do not watch themselves; None where the model has a guard of its own.
    guard: TextLoopGuard | None = None

    def turns(
        self, block: str = "", history: Sequence[ChatTurn] = (), question: str | None = None
    ) -> list[ChatTurn]:
        """The prompt with these passages and turns; by default of this question alone."""
        return build_turns(
            self.question if question is None else question,
            block,
            template=self.template,
            refusal=REFUSAL_SENTENCE[self.language],
            history=history,
        )

    def count(
        self, block: str = "", history: Sequence[ChatTurn] = (), question: str | None = None
    ) -> int:
        """Tokens of that prompt."""
        return self.counter.prompt(self.turns(block, history, question))

    def render(self, passages: Sequence[Passage]) -> str:
        """Passages as the prompt holds them."""
        return render_passages(passages, self.template)

    def spent(self) -> WindowReport:
        """How the window is spent, once history and passages are chosen.

        Counts do not add up over texts, so each part is what it adds to the parts before it.
        """
        system = self.count(question="")
        alone = self.count()
        steps = [self.count("", self.history)]
        for number in range(1, len(self.added) + 1):
            steps.append(self.count(self.render(self.added[:number]), self.history))
        return WindowReport(
            size=self.window,
            reserve=self.reserve,
            system=system,
            history=steps[0] - alone,
            passages=tuple(after - before for before, after in pairwise(steps)),
            question=alone - system,
            free=self.window - self.reserve - steps[-1],
            rounds_left_out=_num_questions(self.answered) - _num_questions(self.history),
            rounds_shortened=_num_read(self.answered[-len(self.history) :], self.history),
            passages_left_out=self.context.num_dropped,
        )

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Record the seconds of a step, added up where it is taken several times."""
        start, started = time.perf_counter(), time.time_ns()
        try:
            yield
        finally:
            self.timings[step] = self.timings.get(step, 0.0) + time.perf_counter() - start
            if (tell := on_step.get()) is not None:
                tell(step, started, time.time_ns())

    def add(self, chunk: BaseMessage) -> AnswerDelta | None:
        """Take in a chunk of the model's stream; its text with the marks that it completed."""
        text = str(chunk.text)
        if text and "first_token" not in self.timings:
            self.timings["first_token"] = time.perf_counter() - self.started
        self.text += text
        self._read_metadata(chunk)
        if self.guard is not None and self.guard.push(text):
            self.finish_reason = "repetition"
        if not text:
            return None
        if self.marker is not None:
            with self.timed("cite"):
                self.marker.push(text)
        return self._delta(text)

    @property
    def loops(self) -> bool:
        """Whether the answer repeats itself and should be ended."""
        return self.finish_reason == "repetition"

    def complete(self) -> str:
        """Text still missing: the refusal, when the model or the evidence gave no answer."""
        if self.text.strip():
            return ""
        self.reason = self.reason or "the model gave no answer"
        self.text += refusal(self.language, self.documents)
        return self.text

    def last_delta(self) -> AnswerDelta:
        """The marks that are still missing, and the answer."""
        answer = self.finish()
        return self._delta("", answer)

    def finish(self) -> Answer:
        """The answer, with citations unless it abstained; what a loop repeated is left out."""
        if self.loops:
            self._leave_out_loop()
        if not self.reason and is_refusal(self.text):
            self.reason = "the model found no answer in the passages"
        with self.timed("cite"):
            citations, unsupported = self._marks()
        self.timings["total"] = time.perf_counter() - self.started
        asked = ChatTurn("user", self.question, prompt=self.prompt, passages=self.added)
        reply = ChatTurn("assistant", self.text, self.token_ids)
        return Answer(
            text=self.text,
            citations=citations,
            context=self.context,
            usage=self.usage or self._counted_usage(),
            timings=self.timings,
            finish_reason=self.finish_reason,
            abstained=bool(self.reason),
            question=self.question,
            reason=self.reason,
            messages=(*self.conversation, asked, reply),
            nearest=_nearest(self.documents) if self.reason else (),
            search_question=self.searched.text,
            unsupported=unsupported,
            trace=self._trace(),
            window=self.report,
        )

    def _trace(self) -> dict[str, str | int | float | None]:
        best = self.documents[0].metadata if self.documents else {}
        when = "before" if self.prompt is None else "after"
        declined = f"declined {when} the model was asked: {self.reason}"
        return {
            "search_question_by": self.searched.by,
            "rewrite_note": self.searched.note,
            "passages_found": len(self.documents),
            "passages_packed": len(self.added),
            "passages_shown_before": len(self.context.passages) - len(self.added),
            "passages_dropped": self.context.num_dropped,
            "evidence": best.get("evidence"),
            "decision": declined if self.reason else "answered",
        }

    def _marks(self) -> tuple[tuple[Citation, ...], tuple[Unsupported, ...]]:
        """Those of the whole text."""
        if self.marker is None or self.reason:
            return (), ()
        self.marker.finish(self.text)
        return tuple(self.marker.citations), tuple(self.marker.unsupported)

    def _delta(self, text: str, answer: Answer | None = None) -> AnswerDelta:
        """A piece with the marks that were not handed out yet."""
        if self.marker is None or self.reason:
            return AnswerDelta(text, answer)
        citations, unsupported = self.marker.citations, self.marker.unsupported
        cited, doubted = self.num_told
        self.num_told = len(citations), len(unsupported)
        return AnswerDelta(text, answer, tuple(citations[cited:]), tuple(unsupported[doubted:]))

    def _read_metadata(self, chunk: BaseMessage) -> None:
        counts: Any = getattr(chunk, "usage_metadata", None)
        if counts:
            cached = (counts.get("input_token_details") or {}).get("cache_read", 0)
            self.usage = Usage(counts["input_tokens"], counts["output_tokens"], cached)
        ids = chunk.additional_kwargs.get(TOKEN_IDS)
        if isinstance(ids, list):
            self.token_ids = tuple(ids)
        metadata = chunk.response_metadata
        reason = metadata.get("finish_reason") or metadata.get("stop_reason")
        if reason in {"length", "max_tokens"}:
            self.finish_reason = "length"
        elif reason == "repetition":
            self.finish_reason = "repetition"

    def _leave_out_loop(self) -> None:
        shorter = without_loop(self.text)
        if shorter != self.text:
            # Kept ids would bring the loop back into the next prompt.
            self.text, self.token_ids = shorter, None

    def _counted_usage(self) -> Usage:
        if not self.num_prompt_tokens:
            return Usage(0, 0)
        return Usage(self.num_prompt_tokens, self.counter.text(self.text))


def _num_questions(turns: Sequence[ChatTurn]) -> int:
    return sum(turn.role == "user" for turn in turns)


def _num_read(before: Sequence[ChatTurn], after: Sequence[ChatTurn]) -> int:
    """Of the same turns, how many have lost what the model read beside their text."""
    return sum(
        b.prompt is not None and a.prompt is None for b, a in zip(before, after, strict=False)
    )


def _nearest(documents: Sequence[Document]) -> tuple[ScoredDocument, ...]:
    return tuple(
        ScoredDocument(
            document=document,
            score=float(document.metadata.get("score", 0.0)),
            retriever=str(document.metadata.get("retriever", "")),
        )
        for document in documents[:_NUM_NEAREST]
    )
