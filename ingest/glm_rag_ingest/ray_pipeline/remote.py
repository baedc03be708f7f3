"""What runs on the nodes: one file read and cut, one batch embedded. Nothing is stored here."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_rag.errors import DocumentError, GlmRagError
from glm_rag.knowledge.embedder import embed_with
from glm_rag_ingest.discover import FoundFile
from glm_rag_ingest.jobs import Cutter, Job
from glm_rag_ingest.loaders.base import Loaded
from glm_rag_ingest.plan import Step
from glm_rag_ingest.process import LoaderProcess
from glm_rag_ingest.reading import Reading, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from langchain_core.embeddings import Embeddings

    from glm_rag_ingest.ray_pipeline.setup import Setup


@dataclass(frozen=True, slots=True)
class NotHere:
    """This node has not the file, or another one under its path."""

    node: str


@dataclass(frozen=True, slots=True)
class Contents:
    """A file's bytes, with the time it had when they were read, in nanoseconds since the epoch."""

    data: bytes
    mtime_ns: int


class NodeReader:
    """Reads and cuts, as the local pipeline does: a child process of its own for each worker."""

    def __init__(self, setup: Setup) -> None:
        limits = setup.limits
        self.key = setup.key
        self._child = LoaderProcess(
            timeout=limits.file_seconds, memory=limits.file_memory_mb * 10**6
        )
        self._cutter = Cutter(setup.splitting, setup.embeddings())

    def read(
        self, step: Step, stored: Loaded | None, contents: Contents | None
    ) -> Reading | Job | NotHere:
        """Do a step.

        Args:
            stored: the documents that are kept, where it may be about them.
            contents: of a file that this node has not.
        """
        if contents is not None:
            return self._read_copy(step, stored, contents)
        if step.task != "resplit" and not is_here(step.file):
            return NotHere(node_name())
        return self._cutter.cut(self._read(step, stored))

    def close(self) -> None:
        """End the child process."""
        self._child.close()

    def _read(self, step: Step, stored: Loaded | None) -> Reading:
        def kept(source: str) -> Loaded:
            if stored is None:
                raise KeyError(source)
            return stored

        return read(step, self._child, kept)

    def _read_copy(self, step: Step, stored: Loaded | None, contents: Contents) -> Reading | Job:
        """The file under its own name in a folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="glm-rag-") as folder:
            path = Path(folder).resolve() / step.file.path.name
            path.write_bytes(contents.data)
            os.utime(path, ns=(contents.mtime_ns, contents.mtime_ns))
            reading = self._read(replace(step, file=replace(step.file, path=path)), stored)
        return self._cutter.cut(_moved(reading, step, path.as_uri()))


def is_here(file: FoundFile) -> bool:
    """Whether the path leads to this very file on this node, by its size and its time."""
    try:
        status = file.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime) == (file.size, file.mtime) and os.access(
        file.path, os.R_OK
    )


def _moved(reading: Reading, step: Step, copy: str) -> Reading:
    """The same with the names of the file that `copy` is one of."""
    if reading.loaded is None or reading.resplit:
        return replace(reading, step=step)

    def named(source: str) -> str:
        return step.file.source + source.removeprefix(copy) if source.startswith(copy) else source

    loaded = Loaded(
        tuple(
            replace(d, source=named(d.source), container=named(d.container))
            for d in reading.loaded.documents
        ),
        tuple(replace(f, source=named(f.source)) for f in reading.loaded.failures),
    )
    return replace(reading, step=step, loaded=loaded)


# A worker process does one task after another: its child and its tokenizer stay.
_readers: list[NodeReader] = []


def read_file(
    key: str,
    setup: Sequence[Any],
    step: Step,
    stored: Loaded | None,
    contents: Contents | None,
) -> Reading | Job | NotHere:
    """The task for one file.

    Args:
        setup: a reference to the run's `Setup`, fetched once by each worker.
    """
    import ray

    if not _readers or _readers[0].key != key:
        for reader in _readers:
            reader.close()
        _readers[:] = [NodeReader(ray.get(setup[0]))]
    try:
        return _readers[0].read(step, stored, contents)
    except OSError as error:  # no room for the copy
        detail = f"unreadable: {node_name()}: {error.strerror or error}"
        return Reading(step, error=DocumentError(detail, reason="unreadable", permanent=False))


class EmbeddingActor:
    """Holds the embedder in a process of its own, one for each processor of the cluster."""

    def __init__(self, setup: Sequence[Any]) -> None:
        self._setup = setup
        self._embeddings: Embeddings | None = None

    def prepare(self) -> str:
        """Load the model, before there is a text to wait for it; why it cannot be, or nothing."""
        import ray

        try:
            self._embeddings = ray.get(self._setup[0]).embeddings()
            self.embed(["a"])
        except (GlmRagError, ImportError) as error:
            return f"{node_name()}: {error}"
        return ""

    def embed(self, texts: list[str]) -> np.ndarray:
        """Vectors `[len(texts), dimension]` in float32, as `KnowledgeBase.embed` gives them."""
        assert self._embeddings is not None  # nothing is embedded before `prepare`
        return embed_with(self._embeddings, texts)


def node_name() -> str:
    """Where this runs, for messages."""
    import ray

    util: Any = ray.util
    return f"node {util.get_node_ip_address()}"
