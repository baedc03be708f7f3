"""OpenTelemetry traces of answers, where an endpoint for them is configured; none otherwise.

A span for each answer, and below it one for each step: retrieve, pack, prompt, generate, cite.
They hold names, counts and times, no text.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glm_rag.answer_run import on_step
from glm_rag.errors import MissingDependencyError
from glm_rag_server.errors import as_api_error
from glm_rag_server.pieces import Piece

if TYPE_CHECKING:
    from starlette.requests import Request

    from glm_rag_server.answering import Job
    from glm_rag_server.context import ServerContext

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_OUTCOME = "glm_rag.outcome"  # as in `glm_rag_answers_total`


@dataclass(slots=True)
class Step:
    """One step, which may have been taken in many parts. Nanoseconds since 1970."""

    start: int
    end: int
    busy: int


@dataclass(slots=True)
class Steps:
    """The steps of one answer, in the order they began."""

    taken: dict[str, Step] = field(default_factory=dict)

    def add(self, name: str, start: int, end: int) -> None:
        """A part of a step is over."""
        step = self.taken.setdefault(name, Step(start, end, 0))
        step.end = end
        step.busy += end - start


class Tracer:
    """Makes spans and sends them in the background.

    Args:
        provider: OpenTelemetry's, with its exporter.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("glm_rag_server")

    @classmethod
    def create(cls, endpoint: str = "") -> Tracer | None:
        """A tracer, if `endpoint` or OpenTelemetry's own variables name where spans go.

        Raises:
            MissingDependencyError: they do, and OpenTelemetry is not installed.
        """
        # The names are OpenTelemetry's, which reads them itself.
        if not endpoint and not os.environ.get(ENDPOINT) and not os.environ.get(_TRACES):
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise MissingDependencyError.for_extra("opentelemetry", "telemetry") from error
        target = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "glm-rag")})
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=target)))
        return cls(provider)

    def tell(
        self, steps: Steps, start: int, attributes: dict[str, Any], headers: dict[str, str]
    ) -> None:
        """Send the spans of an answer that began at `start` and is over.

        Args:
            headers: of the request; its `traceparent` becomes the parent.
        """
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(headers)
        span = self._tracer.start_span(
            "glm_rag.answer", parent, attributes=attributes, start_time=start
        )
        below = trace.set_span_in_context(span)
        for name, step in steps.taken.items():
            seconds = {"glm_rag.busy_seconds": step.busy / 1e9}
            child = self._tracer.start_span(
                f"glm_rag.{name}", below, attributes=seconds, start_time=step.start
            )
            child.end(step.end)
        span.end(time.time_ns())

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def traced(
    context: ServerContext, request: Request, job: Job
) -> Callable[[], Generator[Piece, None, None]]:
    """What makes the pieces of a job, with its spans where traces are wanted."""
    tracer = context.tracer
    if tracer is None:
        return job.make
    attributes: dict[str, Any] = {"glm_rag.kind": job.kind, "glm_rag.model": job.model}
    attributes["glm_rag.request_id"] = request.state.record.id
    headers = {"traceparent": request.headers.get("traceparent", "")}

    def make() -> Generator[Piece, None, None]:
        steps, start = Steps(), time.time_ns()
        on_step.set(steps.add)  # in the context of this answer's work alone
        try:
            with closing(job.make()) as pieces:
                for piece in pieces:
                    yield piece
                    # Afterwards: of who has left, an answer ends as if it were whole.
                    attributes.update(_counts(piece))
        except GeneratorExit:
            attributes[_OUTCOME] = "gone"
            raise
        except Exception as error:
            attributes[_OUTCOME] = "failed" if as_api_error(error).status >= 500 else "refused"
            raise
        finally:
            if job.kind != "knowledge_base":
                steps.add("generate", start, time.time_ns())
            tracer.tell(steps, start, attributes, headers)

    return make


def _counts(piece: Piece) -> dict[str, Any]:
    if piece.end is None:
        return {}
    usage = piece.end.usage
    counts: dict[str, Any] = {
        "glm_rag.prompt_tokens": usage.input_tokens,
        "glm_rag.cached_tokens": usage.cached_tokens,
        "glm_rag.generated_tokens": usage.output_tokens,
        "glm_rag.finish_reason": piece.end.finish_reason,
    }
    abstained = bool(piece.end.extension.get("abstained"))
    counts[_OUTCOME] = "abstained" if abstained else "answered"
    if piece.end.extension:
        counts["glm_rag.abstained"] = abstained
    return counts
