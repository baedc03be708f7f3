"""Read files in a child process that may crash, hang or be killed."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from glm_rag.errors import DocumentError, GlmRagError
from glm_rag.types import ExtractedDocument, IngestFailure, PageSpan
from glm_rag_ingest.loaders.base import Loaded, failure

TIMEOUT = 300.0
MEMORY = 4 << 30
_START_SECONDS = 60.0
# Signals a process gets for what it did itself: the same bytes will do it again.
_OWN_FAULT = {
    signal.SIGSEGV,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
}


class LoaderProcess:
    """One long-lived child, started when first needed and again after it died.

    Args:
        timeout: seconds one file may take.
        memory: bytes of address space the child may use.
    """

    def __init__(self, *, timeout: float = TIMEOUT, memory: int = MEMORY) -> None:
        self._timeout = timeout
        self._memory = memory
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running child, if there is one."""
        return self._child.pid if self._child is not None else None

    def load(self, path: Path) -> Loaded:
        """Read one file; see `glm_rag_ingest.loaders.load`.

        Raises:
            DocumentError: as `load` does, and `timeout` or `crash`.
            GlmRagError: the child cannot be started.
        """
        connection = self._started()
        request = {"path": str(path), "timeout": self._timeout}
        try:
            connection.send_bytes(json.dumps(request).encode())
            if not connection.poll(self._timeout):
                self.close()
                raise failure("timeout", f"not read within {self._timeout:g} s", permanent=False)
            answer = json.loads(connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._crashed() from error
        if "error" in answer:
            raise DocumentError(
                answer["error"], reason=answer["reason"], permanent=answer["permanent"]
            )
        return _loaded(answer)

    def close(self) -> None:
        """End the child at once."""
        if self._connection is not None:
            self._connection.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._connection = self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _started(self) -> Connection:
        if self._connection is not None and self._child is not None and self._child.poll() is None:
            return self._connection
        self.close()
        ours, theirs = multiprocessing.Pipe()
        # -P keeps the working folder, which may hold the user's documents, out of the import path.
        command = [sys.executable, "-P", "-m", "glm_rag_ingest.worker"]
        with tempfile.TemporaryFile() as errors, theirs:
            self._child = subprocess.Popen(
                [*command, str(theirs.fileno()), str(self._memory)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            self._connection = ours
            theirs.close()
            if not _is_ready(ours):
                self.close()
                errors.seek(0)
                lines = errors.read().decode("utf-8", "replace").strip().splitlines()
                reason = lines[-1] if lines else "no answer"
                raise GlmRagError(f"cannot start the process that reads documents: {reason}")
        return ours

    def _crashed(self) -> DocumentError:
        code = self._child.wait() if self._child is not None else 0
        self.close()
        if code >= 0:
            return failure("crash", f"the parser ended the process with code {code}")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        own_fault = -code in _OWN_FAULT
        what = f"the parser crashed with {name}" if own_fault else f"the process got {name}"
        return failure("crash", what, permanent=own_fault)


def _is_ready(connection: Connection) -> bool:
    try:
        return connection.poll(_START_SECONDS) and bool(connection.recv_bytes())
    except (EOFError, OSError):
        return False


def _loaded(answer: dict[str, Any]) -> Loaded:
    documents = tuple(_document(fields) for fields in answer["documents"])
    return Loaded(documents, tuple(IngestFailure(**fields) for fields in answer["failures"]))


def _document(fields: dict[str, Any]) -> ExtractedDocument:
    pages = tuple(PageSpan(**page) for page in fields["pages"])
    return ExtractedDocument(**{**fields, "pages": pages, "warnings": tuple(fields["warnings"])})
