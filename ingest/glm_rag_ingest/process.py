"""Read files in a child process that may crash, hang or be killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from glm_rag.errors import DocumentError, GlmRagError
from glm_rag.types import ExtractedDocument, IngestFailure, PageSpan
from glm_rag_ingest.channel import Channel
from glm_rag_ingest.loaders.base import Loaded, failure

TIMEOUT = 300.0
MEMORY = 4 << 30
_START_SECONDS = 60.0
_END_SECONDS = 2.0
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
        self._channel: Channel | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running child, if there is one."""
        child = self._child
        return child.pid if child is not None else None

    def load(self, path: Path) -> Loaded:
        """Read one file; see `glm_rag_ingest.loaders.load`.

        Raises:
            DocumentError: as `load` does, and `timeout` or `crash`.
            GlmRagError: the child cannot be started.
        """
        channel = self._started()
        request = {"path": str(path), "timeout": self._timeout}
        try:
            channel.send(json.dumps(request).encode())
            answer = json.loads(channel.receive(seconds=self._timeout, is_alive=self._is_alive))
        except TimeoutError:
            self.close()
            raise failure(
                "timeout", f"not read within {self._timeout:g} s", permanent=False
            ) from None
        except (EOFError, OSError, ValueError) as error:
            raise self._crashed() from error
        if "error" in answer:
            raise DocumentError(
                answer["error"], reason=answer["reason"], permanent=answer["permanent"]
            )
        return _loaded(answer)

    def kill(self) -> None:
        """End the child, and whatever it started, at once. Any thread may call it."""
        child = self._child
        if child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the child and let go of it."""
        self.kill()
        if self._channel is not None:
            self._channel.close()
        if self._child is not None:
            self._child.wait()
        self._channel = self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _is_alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _started(self) -> Channel:
        if self._channel is not None and self._is_alive():
            return self._channel
        self.close()
        ours, theirs = socket.socketpair()
        # -P keeps the working folder, which may hold the user's documents, out of the import path.
        command = [sys.executable, "-P", "-m", "glm_rag_ingest.worker"]
        with tempfile.TemporaryFile() as errors, theirs:
            self._channel = Channel(ours)
            self._child = subprocess.Popen(
                [*command, str(theirs.fileno()), str(self._memory), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                process_group=0,  # Ctrl-C is the parent's to handle; what it forks dies with it
            )
            theirs.close()
            if not self._is_ready():
                self.close()
                errors.seek(0)
                lines = errors.read().decode("utf-8", "replace").strip().splitlines()
                reason = lines[-1] if lines else "no answer"
                raise GlmRagError(f"cannot start the process that reads documents: {reason}")
        return self._channel

    def _is_ready(self) -> bool:
        try:
            channel = self._channel
            return channel is not None and bool(
                channel.receive(seconds=_START_SECONDS, is_alive=self._is_alive)
            )
        except (EOFError, OSError):
            return False

    def _crashed(self) -> DocumentError:
        code = self._exit_code()
        self.close()
        if code is None:
            return failure("crash", "the parser broke the connection")
        if code >= 0:
            return failure("crash", f"the parser ended the process with code {code}")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        own_fault = -code in _OWN_FAULT
        what = f"the parser crashed with {name}" if own_fault else f"the process got {name}"
        return failure("crash", what, permanent=own_fault)

    def _exit_code(self) -> int | None:
        """How the child ended; None if it has not, after a moment."""
        if self._child is None:
            return 0
        try:
            return self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return None


def _loaded(answer: dict[str, Any]) -> Loaded:
    documents = tuple(_document(fields) for fields in answer["documents"])
    return Loaded(documents, tuple(IngestFailure(**fields) for fields in answer["failures"]))


def _document(fields: dict[str, Any]) -> ExtractedDocument:
    pages = tuple(PageSpan(**page) for page in fields["pages"])
    return ExtractedDocument(**{**fields, "pages": pages, "warnings": tuple(fields["warnings"])})
