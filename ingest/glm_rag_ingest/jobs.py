"""One file between reading and storing: its documents, their chunks, what is to be embedded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np

from glm_rag.settings import SplittingSettings
from glm_rag.types import Chunk, ExtractedDocument, IngestFailure
from glm_rag_ingest import loaders, splitting
from glm_rag_ingest.counting import token_counter
from glm_rag_ingest.discover import FoundFile
from glm_rag_ingest.embedding import Texts, stack
from glm_rag_ingest.loaders.base import Loaded
from glm_rag_ingest.plan import INSIDE, fingerprint, made_by, parser_of
from glm_rag_ingest.reading import Reading

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

Item = tuple[ExtractedDocument, list[Chunk], np.ndarray]


@dataclass(slots=True, eq=False)
class Job:
    """A file whose documents are cut, on its way to be stored.

    Attributes:
        failures: of members.
        texts: what is embedded, of all chunks in order; set when that begins.
    """

    reading: Reading
    documents: list[ExtractedDocument]
    chunks: list[list[Chunk]]
    failures: tuple[IngestFailure, ...]
    texts: Texts = field(default_factory=lambda: Texts([], []))

    @property
    def file(self) -> FoundFile:
        return self.reading.step.file

    @property
    def num_bytes(self) -> int:
        """Memory that the texts take."""
        return self.reading.num_bytes

    @property
    def num_chunks(self) -> int:
        return sum(map(len, self.chunks))

    @property
    def content(self) -> tuple[str, str, str]:
        """Files that agree in this give the same documents."""
        own = self.documents[0]
        return own.sha256, own.parser_version, self.file.path.suffix

    def items(self) -> list[Item]:
        """What is stored, in one transaction."""
        vectors = iter(self.texts.vectors)
        return [
            (document, chunks, stack([next(vectors) for _ in chunks]))
            for document, chunks in zip(self.documents, self.chunks, strict=True)
        ]

    def warnings(self) -> Iterator[str]:
        """What was lost while reading, by file and member."""
        for document in self.documents:
            inside = unquote(document.source.partition(INSIDE)[2])
            name = loaders.display_name(self.file.path) + (f"{INSIDE}{inside}" if inside else "")
            yield from (f"{name}: {warning}" for warning in document.warnings)


class Cutter:
    """Cuts documents for an embedder, beside the run: a long book takes ten seconds and more.

    One document at a time, since not every tokenizer serves two threads.
    """

    def __init__(self, settings: SplittingSettings, embeddings: Embeddings) -> None:
        self._settings = settings
        self._counter, self._max_tokens = token_counter(embeddings)
        self._lock = threading.Lock()
        self._is_stopped = False
        self.recipe = recipe(settings)

    def cut(self, reading: Reading) -> Reading | Job:
        """A file that was read, with its documents in chunks; any other as it is."""
        if reading.loaded is None:
            return reading
        try:
            with self._lock:
                return self._job(reading, reading.loaded)
        # Whatever goes wrong with one file, the others are to be ingested.
        except Exception as error:  # noqa: BLE001
            return replace(reading, error=error, stage="split")

    def stop(self) -> None:
        """Let whatever is being cut fail at once."""
        self._is_stopped = True

    def _job(self, reading: Reading, loaded: Loaded) -> Job:
        file = reading.step.file
        own, *members = loaded.documents
        if not reading.resplit:  # a stored text keeps the source it is stored under, as copies do
            own = replace(own, source=file.source)
        documents = [
            replace(d, parser_version=made_by(parser_of(d.parser_version), self.recipe))
            for d in (own, *members)
        ]
        chunks = [
            splitting.split(document, self._count_tokens, self._settings, self._max_tokens)
            for document in documents
        ]
        known_by = fingerprint(file) if loaded.failures else ""
        failures = tuple(replace(failed, fingerprint=known_by) for failed in loaded.failures)
        return Job(reading, documents, chunks, failures)

    def _count_tokens(self, text: str) -> int:
        if self._is_stopped:
            raise InterruptedError
        return self._counter(text)


def recipe(settings: SplittingSettings) -> str:
    """Changes whenever documents would be cut in another way."""
    return f"{splitting.VERSION}:{settings.chunk_tokens}:{settings.overlap_tokens}"


def embedded_texts(job: Job, embedding_text: Callable[[Chunk], str]) -> list[str]:
    """What is embedded of all chunks of a file, in order."""
    return [embedding_text(chunk) for chunks in job.chunks for chunk in chunks]
