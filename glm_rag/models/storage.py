"""The folder of pulled models: locks, temporary folders, free space, progress, licence memory.

models/NAME           a complete model, or a link to a folder of the user's
models/.partial/NAME  what a running or broken pull has so far
models/.locks/NAME    held while a pull runs; the system frees it when the process dies
models/.licenses.json which licences were accepted, and when
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from glm_rag.errors import ModelError
from glm_rag.models.registry import License

OnProgress = Callable[[str, int, int | None], None]

_LICENSES = ".licenses.json"
# Conversion and file systems need a little more than the bare sizes.
_SPARE_BYTES = 100_000_000


def no_progress(_step: str, _done: int, _total: int | None) -> None:
    """The progress callback of callers that want none."""


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the system says about a folder we cannot write to into one clear line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        elsewhere = _elsewhere(error, folder)
        if elsewhere is not None:
            raise ModelError(f"cannot read {elsewhere}: {reason}") from error
        raise ModelError(
            f"cannot write to {folder}: {reason}; set GLM_RAG_HOME to a folder you can write to"
        ) from error


def _elsewhere(error: OSError, folder: Path) -> Path | None:
    """The path that could not be used, where it is no part of `folder`: a source being read."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str)]
    paths = [Path(name) for name in names]
    if any(path.is_relative_to(folder) or folder.is_relative_to(path) for path in paths):
        return None
    return next(iter(paths), None)


@contextlib.contextmanager
def locked(models_dir: Path, name: str, on_progress: OnProgress) -> Iterator[None]:
    """Hold the lock of one model; wait, after telling so, while another process pulls it."""
    import fcntl  # absent on Windows, where nothing but a pull needs it

    with writing(models_dir):
        (models_dir / ".locks").mkdir(parents=True, exist_ok=True)
        file = (models_dir / ".locks" / name).open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("waiting for another pull of this model", 0, None)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def partial_folder(models_dir: Path, name: str) -> Path:
    """Folder of what is fetched so far; call with the lock held."""
    folder = models_dir / ".partial" / name
    with writing(models_dir):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def clear(folder: Path) -> None:
    """Empty a folder that a dead pull left; a process of it may still be writing there."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def remove_hidden(folder: Path) -> None:
    """Remove what the hub clients note for themselves in a folder they downloaded to."""
    for entry in folder.glob(".*"):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def install(finished: Path, target: Path) -> Path:
    """Move a finished folder into place in one step."""
    with writing(target.parent):
        if target.is_symlink():  # a link whose folder is gone
            target.unlink()
        finished.rename(target)
    return target


def link(folder: Path, target: Path) -> Path:
    """Register a folder of the user's under `target` by a link, in one step, without a copy."""
    temporary = target.with_name(f".link-{os.getpid()}-{target.name}")
    with writing(target.parent):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(folder.resolve(), target_is_directory=True)
        temporary.replace(target)
    return target


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile count as nothing."""
    total = 0
    for parent, _folders, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).stat().st_size
    return total


def check_space(folder: Path, needed: int) -> None:
    """Refuse a pull that would fill the disk.

    Raises:
        ModelError: fewer than `needed` bytes (and a little more) are free.
    """
    free = shutil.disk_usage(folder).free
    wanted = needed + _SPARE_BYTES
    if free < wanted:
        raise ModelError(
            f"not enough space in {folder}: {wanted / 1e9:.1f} GB needed, {free / 1e9:.1f} GB "
            "free; make room or set GLM_RAG_HOME to another disk"
        )


@contextlib.contextmanager
def watched(
    folder: Path, step: str, total: int | None, on_progress: OnProgress, interval: float = 0.25
) -> Iterator[None]:
    """Report how much lies in `folder` while the body fills it, whoever writes the files."""
    finished = threading.Event()

    def report() -> None:
        while not finished.wait(interval):
            on_progress(step, folder_size(folder), total)

    thread = threading.Thread(target=report, name="glm-rag-pull-progress", daemon=True)
    on_progress(step, folder_size(folder), total)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    on_progress(step, folder_size(folder), total)


def license_accepted(license_: License, models_dir: Path) -> bool:
    """Whether the licence needs no consent or was accepted before."""
    return not license_.needs_consent or license_.name in _accepted(models_dir)


def remember_license(license_: License, models_dir: Path) -> None:
    """Note that the user said yes, so that the licence is shown once."""
    if license_accepted(license_, models_dir):
        return
    noted = _accepted(models_dir) | {license_.name: datetime.now(UTC).isoformat(timespec="seconds")}
    temporary = models_dir / f"{_LICENSES}.{os.getpid()}"
    with writing(models_dir):
        models_dir.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")
        temporary.replace(models_dir / _LICENSES)


def _accepted(models_dir: Path) -> dict[str, str]:
    try:
        noted = json.loads((models_dir / _LICENSES).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent or damaged: ask again
        return {}
    return noted if isinstance(noted, dict) else {}
