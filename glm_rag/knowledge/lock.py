"""The lock that one long writer holds: two ingest runs would do the same work twice.

It protects no data (SQLite's own lock does), so short writes need not ask for it. The system
drops it when its process ends, however that ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from glm_rag.errors import KnowledgeBaseBusyError, KnowledgeBaseError

FILE_NAME = "write.lock"
_POLL_SECONDS = 0.2
_MAX_COMMAND = 120


@contextmanager
def writing(
    folder: Path,
    name: str,
    *,
    wait: float | None = None,
    on_wait: Callable[[str], None] | None = None,
    advice: str = "try again when it is done",
) -> Iterator[None]:
    """Hold the lock of the knowledge base in `folder`.

    Args:
        name: of the knowledge base, for messages.
        wait: seconds to wait for another holder; None: do not wait.
        on_wait: gets one line that says who holds it, once, before waiting.
        advice: what to do if another one holds it.

    Raises:
        KnowledgeBaseBusyError: another one holds it.
        KnowledgeBaseError: the folder cannot be written, or was deleted or renamed while waiting.
    """
    path = folder / FILE_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except FileNotFoundError as error:
        raise KnowledgeBaseError(
            f"{folder} is gone: knowledge base {name!r} was deleted"
        ) from error
    except OSError as error:
        raise KnowledgeBaseError(
            f"no permission to write into {folder} ({error.strerror}): change its owner or mode, "
            "or choose another data folder with GLM_RAG_HOME"
        ) from error
    try:
        _acquire(descriptor, f"knowledge base {name!r}", wait, on_wait, advice)
        if not _is_at(path, descriptor):
            raise KnowledgeBaseError(
                f"knowledge base {name!r} was deleted or renamed meanwhile: run again"
            )
        _sign(descriptor)
        yield
        _write(descriptor, b"")
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _acquire(
    descriptor: int,
    what: str,
    wait: float | None,
    on_wait: Callable[[str], None] | None,
    advice: str,
) -> None:
    deadline = time.monotonic() + (wait or 0.0)
    told = False
    while not _try(descriptor, what):
        holder = f"{what} is being written by {_holder(descriptor)}"
        if time.monotonic() >= deadline:
            raise KnowledgeBaseBusyError(f"{holder}: {advice}")
        if not told and on_wait is not None:
            on_wait(f"{holder}: waiting")
        told = True
        time.sleep(_POLL_SECONDS)


def _try(descriptor: int, what: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise KnowledgeBaseError(
            f"{what} lies on a disk that knows no locks ({error.strerror}): put the data folder "
            "on a local disk with GLM_RAG_HOME"
        ) from error
    return True


def _sign(descriptor: int) -> None:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_MAX_COMMAND]
    me = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.time(),
        "command": command.encode("utf-8", "replace").decode(),
    }
    _write(descriptor, json.dumps(me).encode())


def _write(descriptor: int, data: bytes) -> None:
    """The text is only for messages: a full disk must not keep anybody from holding the lock."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)
    except OSError:
        return


def _holder(descriptor: int) -> str:
    try:
        who = json.loads(os.pread(descriptor, 4096, 0))
        since = datetime.fromtimestamp(float(who["since"])).strftime("%Y-%m-%d %H:%M")
        return f"process {who['pid']} on {who['host']} since {since} ({who['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
