"""Files from reading to storing: parsers run ahead, the embedder never waits, one thread writes.

    steps ─► Readers ─► Waiting ─► Embedder ─► one transaction per file
             cutting    batches of many files

The caller's thread takes one event after another from the two, and alone writes. Whether the two
work in this machine or on a cluster is the engine's affair; see `engines`.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from glm_rag.errors import DocumentError, GlmRagError
from glm_rag_ingest.embedding import Embedded, Texts, Waiting, batch_size
from glm_rag_ingest.engines import Embedder, Engine, Event
from glm_rag_ingest.interruption import Interruption
from glm_rag_ingest.jobs import Job, embedded_texts
from glm_rag_ingest.plan import Step
from glm_rag_ingest.progress import Tracker
from glm_rag_ingest.reading import Reading
from glm_rag_ingest.storing import Store
from glm_rag_ingest.tally import Tally

if TYPE_CHECKING:
    from glm_rag.knowledge.base import KnowledgeBase

_TICK_SECONDS = 1.0  # between two looks at the clock where nothing happens
_WAKE = None


class Conveyor:
    """One pass over some files.

    Args:
        kb: whose embedder is used; None: nothing is embedded, as in a dry run.
        engine: reads, cuts and embeds.
        store: takes what comes out.
        stop: set by another thread to end the pass after the batch at hand.
    """

    def __init__(
        self,
        kb: KnowledgeBase | None,
        engine: Engine,
        store: Store,
        tally: Tally,
        tracker: Tracker,
        stop: threading.Event,
    ) -> None:
        self._stop = stop
        self._kb = kb
        self._engine = engine
        self._store = store
        self._tally = tally
        self._tracker = tracker
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._waiting = Waiting(batch_size(kb.embeddings) if kb is not None else 1)
        self._jobs: dict[Texts, Job] = {}  # those that are being embedded
        self._unkept: dict[Texts, list[int]] = {}  # of those, vectors that only memory holds
        # Files by content: the first is in work, the others wait to become its copies.
        self._twins: dict[tuple[str, str, str], list[Job]] = {}
        self._num_open = 0
        self._num_embedding = 0  # batches
        self._embedder: Embedder | None = None

    def run(self, steps: Sequence[Step]) -> None:
        """Do all steps.

        Raises:
            KeyboardInterrupt, Stopped: the user, or `stop`, asked to end; what was finished is
                stored, and vectors of unfinished files are kept.
            GlmRagError: something that concerns all files.
        """
        interruption = Interruption(lambda: self._events.put(_WAKE), self._stop)
        self._num_open = len(steps)
        self._readers = self._engine.readers(steps, self._store.stored, self._events.put)
        if self._kb is not None:
            self._embedder = self._engine.embedder(self._kb, self._events.put)
        try:
            with interruption.listening(), self._readers:
                self._go(interruption)
        finally:
            if self._embedder is not None:
                self._embedder.close()
            with suppress(GlmRagError):  # it is what ended the run, or will be met again
                self._keep_all()

    def _go(self, interruption: Interruption) -> None:
        while self._num_open and not interruption.requested:
            self._take(self._next_event(), interruption)
            self._feed()
        if interruption.requested:
            self._readers.close()
            while self._num_embedding:
                self._take(self._next_event(), interruption)
            interruption.end()

    def _feed(self) -> None:
        embedder = self._embedder
        while embedder is not None and self._waiting and self._num_embedding < embedder.capacity:
            self._num_embedding += 1
            embedder.start(self._waiting.take())

    def _next_event(self) -> Event:
        try:
            return self._events.get(timeout=_TICK_SECONDS)
        except Empty:
            return _WAKE

    def _take(self, event: Event, interruption: Interruption) -> None:
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Embedded):
            self._take_vectors(event)
        elif event is not None and not interruption.requested:
            self._take_reading(event)
        self._tracker.tell()

    # ------------------------------------------------------------ what was read

    def _take_reading(self, result: Reading | Job) -> None:
        reading = result.reading if isinstance(result, Job) else result
        self._tracker.reads(reading.step.file)
        if isinstance(result, Job):
            self._begin(result)
        elif result.error is not None:
            self._fail(result, result.stage, result.error)
        else:
            self._store.touch(result)
            self._close(result)

    def _begin(self, job: Job) -> None:
        """Embed a file, unless another with the same bytes is here or in work."""
        if job.content in self._twins:
            self._twins[job.content].append(job)
        elif self._store.copy(job):
            self._close(job.reading)
        else:
            self._twins[job.content] = []
            self._look_up(job)

    def _look_up(self, job: Job) -> None:
        if self._kb is None:
            self._finish(job)
            return
        texts = embedded_texts(job, self._kb.embedding_text)
        job.texts = Texts(texts, self._kb.find_vectors(texts))
        self._tracker.finds(job.file, job.texts.num_missing)
        if job.texts.num_missing:
            self._jobs[job.texts] = job
            self._unkept[job.texts] = []
            self._waiting.add(job.texts)
        else:
            self._finish(job)

    # ------------------------------------------------------------ what was embedded

    def _take_vectors(self, event: Embedded) -> None:
        self._num_embedding -= 1
        if event.vectors is None:
            self._take_failure(event)
            return
        places: dict[Texts, list[int]] = defaultdict(list)
        for (texts, place), vector in zip(event.batch.places, event.vectors, strict=True):
            texts.vectors[place] = vector
            places[texts].append(place)
        self._tally.num_embedded += len(event.batch.places)
        self._tracker.num_embedded = self._tally.num_embedded
        for texts, new in places.items():
            self._take_part(texts, new)

    def _take_part(self, texts: Texts, new: list[int]) -> None:
        job = self._jobs.get(texts)
        if job is None:  # another batch of this file has failed meanwhile
            return
        texts.num_missing -= len(new)
        if not texts.num_missing:
            self._finish(job)
            return
        self._tracker.embeds(job.file, 1 - texts.num_missing / len(texts.texts))
        self._unkept[texts] += new
        if len(new) == self._waiting.size:  # a batch of its own: a long file
            self._keep(texts)

    def _take_failure(self, event: Embedded) -> None:
        """A batch of several files is tried again file by file, to find whose fault it is."""
        if isinstance(event.error, GlmRagError) and not isinstance(event.error, DocumentError):
            raise event.error
        batch = event.batch.of(self._jobs)  # without files of which another batch has failed
        if len(event.batch.owners) > 1:
            self._waiting.add_alone(batch)
            return
        if not batch.places:
            return
        (texts,) = batch.owners
        self._waiting.drop(texts)
        self._keep(texts)
        job = self._jobs.pop(texts)
        self._fail_job(job, "embed", event.error or RuntimeError("no vectors"))

    # ------------------------------------------------------------ the end of a file

    def _finish(self, job: Job) -> None:
        self._jobs.pop(job.texts, None)
        self._unkept.pop(job.texts, None)
        try:
            self._store.put(job)
        except GlmRagError:
            raise  # concerns all files: no disk space, no permission
        except Exception as error:  # noqa: BLE001 - as in `_take_reading`
            self._fail_job(job, "store", error)
            return
        self._tracker.num_chunks = self._tally.num_chunks
        self._close(job.reading)
        self._begin_twins(job)

    def _fail_job(self, job: Job, stage: str, error: Exception) -> None:
        self._unkept.pop(job.texts, None)
        self._fail(job.reading, stage, error)
        self._begin_twins(job)

    def _begin_twins(self, job: Job) -> None:
        for twin in self._twins.pop(job.content, ()):
            self._begin(twin)

    def _fail(self, reading: Reading, stage: str, error: Exception) -> None:
        if isinstance(error, GlmRagError) and not isinstance(error, DocumentError):
            raise error  # concerns all files: no child process, no embedder
        self._tracker.finds(reading.step.file, 0)
        self._store.fail(reading.step.file, stage, error)
        self._close(reading)

    def _close(self, reading: Reading) -> None:
        self._num_open -= 1
        self._readers.release(reading.num_bytes)
        self._tracker.finish(reading.step.file)

    # ------------------------------------------------------------ vectors of unfinished files

    def _keep(self, texts: Texts) -> None:
        places = self._unkept[texts]
        self._unkept[texts] = []
        self._store.keep(self._jobs[texts], places)

    def _keep_all(self) -> None:
        for texts in list(self._unkept):
            self._keep(texts)
