"""A folder that is there when it is complete, and not before."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from glm_rag.errors import ModelError

_OTHER_FILES = 50_000_000  # tokenizer, JSON and what a file system adds


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` that becomes it when the body ends without an error.

    Raises:
        ModelError: the place cannot be written to, or another export is writing beside it.
    """
    partial = target.parent / f".{target.name}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(target.parent):
            shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
            partial.mkdir()
            try:
                yield partial
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"cannot write to {target}: {reason}") from error


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other exports out of a folder; the system frees the lock when the process dies."""
    import fcntl  # absent on Windows

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModelError(f"another export is writing into {folder}: wait for it") from error
        yield
    finally:
        os.close(descriptor)


def check_space(folder: Path, weights: int) -> None:
    """Refuse to begin where so many bytes of weights do not fit.

    Raises:
        ModelError: the disk is too small.
    """
    free, wanted = shutil.disk_usage(folder).free, weights + _OTHER_FILES
    if free < wanted:
        raise ModelError(
            f"not enough space in {folder.parent}: {wanted / 1e9:.1f} GB needed, "
            f"{free / 1e9:.1f} GB free; make room or choose another disk with --out"
        )
