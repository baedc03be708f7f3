"""Where files are read and texts are embedded: the one seam between this machine and a cluster.

Everything around it is the same for all engines: what is planned, looked up, stored, counted,
kept after an interruption and taken up again. See `conveyor`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from glm_rag_ingest.embedding import Batch, Embedded, EmbedderThread
from glm_rag_ingest.jobs import Cutter, Job
from glm_rag_ingest.loaders.base import Loaded
from glm_rag_ingest.plan import Step
from glm_rag_ingest.pool import ReadingPool
from glm_rag_ingest.process import LoaderProcess
from glm_rag_ingest.reading import Reading, read

if TYPE_CHECKING:
    from glm_rag.knowledge.base import KnowledgeBase

# What a run takes one after another. None: have a look at the clock. An exception ends the run.
Event = Reading | Job | Embedded | Exception | None
Deliver = Callable[[Event], None]


class Readers(Protocol):
    """Read and cut files ahead of the embedder; a context, in which they work.

    Every step gives one `Reading` or `Job`, in any order, until they are closed.
    """

    def release(self, num_bytes: int) -> None:
        """Texts of so many bytes are not needed any more."""

    def close(self) -> None:
        """Break off whatever is being read; nothing is delivered any more."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Embedder(Protocol):
    """Embeds batches beside the run; every one gives one `Embedded`, in any order."""

    @property
    def capacity(self) -> int:
        """How many batches it works on at once; may change."""

    def start(self, batch: Batch) -> None:
        """Embed a batch; the caller has at most `capacity` of them under way."""

    def close(self) -> None:
        """End after the batches at hand."""


class Engine(Protocol):
    """Makes both for one pass; a result may come again only where this says so."""

    def readers(
        self, steps: Sequence[Step], stored: Callable[[str], Loaded], deliver: Deliver
    ) -> Readers:
        """For these steps; `stored`: the documents that are kept under a source."""

    def embedder(self, kb: KnowledgeBase, deliver: Deliver) -> Embedder:
        """That of a knowledge base."""


class LocalEngine:
    """Child processes that read, and a thread that embeds.

    Args:
        children: as many files are read at once.
    """

    def __init__(self, cutter: Cutter, children: Sequence[LoaderProcess]) -> None:
        self._cutter = cutter
        self._children = children

    def readers(
        self, steps: Sequence[Step], stored: Callable[[str], Loaded], deliver: Deliver
    ) -> Readers:
        """A thread for each child."""

        def work(step: Step, child: LoaderProcess) -> Reading | Job:
            return self._cutter.cut(read(step, child, stored))

        # Without the cutter's end the pool would wait for that of a book.
        return ReadingPool(steps, self._children, work, deliver, on_close=self._cutter.stop)

    def embedder(self, kb: KnowledgeBase, deliver: Deliver) -> Embedder:
        """The knowledge base's own, which computes one batch at a time."""
        return EmbedderThread(kb.embed, deliver)
