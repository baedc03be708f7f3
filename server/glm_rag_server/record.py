"""What is noted of one request, for its log line and the figures."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glm_rag.types import Usage

if TYPE_CHECKING:
    from starlette.requests import Request

    from glm_rag_server.metrics import Metrics
    from glm_rag_server.pieces import End


@dataclass(slots=True)
class Record:
    """Filled by the routes on the way; holds no text of documents or questions.

    Attributes:
        id: of the request. kind: of answer (`chat`, `knowledge_base`, `completion`), if it is one.
        waited, first_token, ended: when these came, by `time.monotonic`; None: they did not.
        question, text: only where the settings say so.
    """

    id: str
    began: float = field(default_factory=time.monotonic)
    kind: str = ""
    model: str = ""
    waited: float | None = None
    placed: float | None = None
    first_token: float | None = None
    usage: Usage | None = None
    finish_reason: str = ""
    abstained: bool | None = None
    num_citations: int | None = None
    outcome: str = ""
    question: str = ""
    text: str = ""

    def got_place(self, waited: float, metrics: Metrics) -> None:
        """The turn has come."""
        self.waited, self.placed = waited, time.monotonic()
        metrics.waiting_seconds.observe(waited)

    def got_text(self) -> None:
        """Some text came."""
        if self.first_token is None:
            self.first_token = time.monotonic()

    def got_end(self, end: End, metrics: Metrics) -> None:
        """The answer is whole."""
        self.usage, self.finish_reason = end.usage, end.finish_reason
        metrics.count_usage(end.usage)
        self._observe_speed(end.usage.output_tokens, metrics)
        if end.extension:
            self.abstained = end.extension["abstained"]
            self.num_citations = len(end.extension["citations"])
            if self.abstained:
                metrics.abstentions.inc()

    def _observe_speed(self, num_tokens: int, metrics: Metrics) -> None:
        """An abstention writes no tokens and says nothing about speed."""
        if self.first_token is None or self.placed is None or not num_tokens:
            return
        metrics.first_token.observe(self.first_token - self.placed)
        if num_tokens > 1:
            seconds = max(time.monotonic() - self.first_token, 1e-6)
            metrics.token_rate.observe((num_tokens - 1) / seconds)


def record_of(request: Request) -> Record:
    """The record of this request."""
    record: Record = request.state.record
    return record
