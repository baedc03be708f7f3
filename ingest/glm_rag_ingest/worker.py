"""The child process that reads files: `python -m glm_rag_ingest.worker FD MEMORY PARENT`.

A parser may crash, hang or eat all memory; here it cannot take the run with it. Requests and
answers are JSON over the socket whose file descriptor is `FD`; it ends when the socket closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glm_rag.errors import DocumentError, MissingDependencyError
from glm_rag_ingest.channel import Channel
from glm_rag_ingest.loaders import load

READY = b"ready"
# The parent kills a worker that is late; should the parent be gone, this ends it.
_GRACE_SECONDS = 30
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve(channel: Channel) -> None:
    """Answer requests until the other side hangs up."""
    channel.send(READY)
    while True:
        try:
            request = json.loads(channel.receive())
        except EOFError:
            return
        signal.alarm(int(request["timeout"]) + _GRACE_SECONDS)
        answer = _answer(Path(request["path"]))
        signal.alarm(0)
        channel.send(json.dumps(answer).encode())


def _answer(path: Path) -> dict[str, Any]:
    try:
        return asdict(load(path))
    except DocumentError as error:
        return {"error": str(error), "reason": error.reason, "permanent": error.permanent}
    except MissingDependencyError as error:
        return {"error": f"unsupported: {error}", "reason": "unsupported", "permanent": False}


def _silence() -> None:
    """Native parsers write to the standard streams; nobody here should read that."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    warnings.simplefilter("ignore")


def _die_with(parent: int) -> None:
    """Where the system can, end with the run, even in the middle of a file."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def _limit(memory: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # not every system can limit it
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Serve on the file descriptor, within the memory, for the parent given as arguments."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    descriptor, memory, parent = map(int, sys.argv[1:4])
    _die_with(parent)
    _limit(memory)
    os.set_inheritable(descriptor, False)  # what a parser starts has no use for it
    channel = Channel(socket.socket(fileno=descriptor))
    _silence()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(channel)


if __name__ == "__main__":
    main()
