"""Run a program and see how much memory it took at most."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Finished:
    """Output of a program, its peak resident memory (VmHWM) in bytes, and how long it ran."""

    stdout: str
    peak_rss: int
    seconds: float


def run_child(command: Sequence[str], env: Mapping[str, str] | None = None) -> Finished:
    """Run to the end.

    Raises:
        RuntimeError: it failed; the message has the end of what it wrote to stderr.
    """
    started, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        while process.poll() is None:
            peak = max(peak, _peak_rss(process.pid))
            time.sleep(_POLL_SECONDS)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command[0]} failed ({process.returncode}): {err.read()[-2000:]}")
        return Finished(out.read(), peak, time.perf_counter() - started)


def _peak_rss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = [line.split() for line in lines if line.startswith("VmHWM:")]
    return int(found[0][1]) * 1024 if found else 0
