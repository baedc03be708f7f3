"""Figures for Prometheus, in a registry of the app's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from glm_rag.types import Usage
    from glm_rag.waiting import FairLine

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
# Fewer are the words that every prompt begins with.
_HIT_TOKENS = 16
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """All figures; `docs/server.md` lists them.

    Args:
        line: of answers, whose length is shown.
    """

    def __init__(self, line: FairLine) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "HTTP requests", "route", "method", "status")
        self.request_seconds = self._histogram(
            "request_seconds", "time to the end of a response", _SECONDS, "route"
        )
        self.refused = self._counter("refused", "requests refused by a limit", "reason")
        self.first_token = self._histogram(
            "first_token_seconds", "from a request's place to its first token", _SECONDS
        )
        self.waiting_seconds = self._histogram("waiting_seconds", "time in the queue", _SECONDS)
        self.token_rate = self._histogram(
            "tokens_per_second", "of one answer, after its first token", _RATES
        )
        self.prompt_tokens = self._counter("prompt_tokens", "tokens read, cached ones included")
        self.cached_tokens = self._counter("cached_tokens", "of those, not computed again")
        self.generated_tokens = self._counter("generated_tokens", "tokens written")
        self.answers = self._counter("answers", "answers begun", "kind", "outcome")
        self.cache_hits = self._counter("cache_hits", "answers that began from a kept prompt")
        self.abstentions = self._counter("abstentions", "questions without evidence")
        self._gauge("queue_length", "requests that wait").set_function(lambda: line.num_waiting)
        self._gauge("running", "answers that are being written").set_function(
            lambda: line.num_running
        )

    def count_usage(self, usage: Usage) -> None:
        """Tokens of an answer that has ended."""
        self.prompt_tokens.inc(usage.input_tokens)
        self.cached_tokens.inc(usage.cached_tokens)
        self.generated_tokens.inc(usage.output_tokens)
        if usage.cached_tokens >= _HIT_TOKENS:
            self.cache_hits.inc()

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(f"glm_rag_{name}", help_, labels, registry=self.registry)

    def _gauge(self, name: str, help_: str) -> Gauge:
        return Gauge(f"glm_rag_{name}", help_, registry=self.registry)

    def _histogram(
        self, name: str, help_: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"glm_rag_{name}", help_, labels, buckets=buckets, registry=self.registry)
