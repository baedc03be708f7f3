"""The child process that reads files: `python -m glm_rag_ingest.worker FD`.

A parser may crash, hang or eat all memory; here it cannot take the run with it. Requests and
answers are JSON over the socket whose file descriptor is `FD`; it ends when the socket closes.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import warnings
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from glm_rag.errors import DocumentError, MissingDependencyError
from glm_rag_ingest.loaders import load

READY = b"ready"
# The parent kills a worker that is late; should the parent be gone, this ends it.
_GRACE_SECONDS = 30


def serve(connection: Connection) -> None:
    """Answer requests until the other side hangs up."""
    connection.send_bytes(READY)
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        signal.alarm(int(request["timeout"]) + _GRACE_SECONDS)
        answer = _answer(Path(request["path"]))
        signal.alarm(0)
        connection.send_bytes(json.dumps(answer).encode())


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


def main() -> None:
    """Serve on the file descriptor given as first argument, within the memory of the second."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    descriptor, memory = int(sys.argv[1]), int(sys.argv[2])
    with contextlib.suppress(ValueError, OSError):  # not every system can limit it
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    connection = Connection(descriptor)
    _silence()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(connection)


if __name__ == "__main__":
    main()
