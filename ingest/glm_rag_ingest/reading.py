"""From a step of the plan to the text of its file, in a thread beside the run."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from glm_rag_ingest.loaders.base import Loaded
from glm_rag_ingest.plan import Step
from glm_rag_ingest.process import LoaderProcess

# A file changed again within this many seconds of being read may keep its size and its time.
_CLOCK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of a step.

    Attributes:
        loaded: the file's documents; None where it failed or has not changed.
        error: why it could not be read, or cut, as `stage` says.
        resplit: the text is the stored one.
        is_settled: a later change will show in the file's time.
        num_bytes: memory that the texts take.
    """

    step: Step
    loaded: Loaded | None = None
    error: Exception | None = None
    resplit: bool = False
    is_settled: bool = True
    num_bytes: int = 0
    stage: str = "load"


def read(step: Step, child: LoaderProcess, stored: Callable[[str], Loaded]) -> Reading:
    """Do a step; whatever goes wrong is in the result.

    Args:
        stored: the documents that are kept under a source.
    """
    started = time.time()
    try:
        task = step.task
        if task == "compare":
            task = (
                step.then if step.known and _sha256(step.file.path) == step.known.sha256 else "read"
            )
        if task == "skip":
            return Reading(step, is_settled=_is_settled(step.file.mtime, started))
        if task == "resplit":
            loaded = _at(stored(step.file.source), step.file.mtime, step.file.size)
        else:
            loaded = child.load(step.file.path)
    # A thread has nobody to raise to; the run decides what each error means.
    except Exception as error:  # noqa: BLE001
        return Reading(step, error=error)
    file = loaded.documents[0]
    settled = _is_settled(file.mtime, started)
    if not settled:
        # No file has this time, so the next run compares the bytes.
        loaded = _at(loaded, math.nextafter(file.mtime, 0.0), file.size)
    size = sum(sys.getsizeof(document.text) for document in loaded.documents)
    return Reading(step, loaded, None, task == "resplit", settled, size)


def _at(loaded: Loaded, mtime: float, size: int) -> Loaded:
    file, *members = loaded.documents
    return replace(loaded, documents=(replace(file, mtime=mtime, size=size), *members))


def _is_settled(mtime: float, now: float) -> bool:
    return abs(now - mtime) > _CLOCK_SECONDS


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
