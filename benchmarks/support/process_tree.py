"""Run a program and see how much memory it and all it starts took together."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Finished:
    """A program's output and wall time, and the peaks of its whole process tree in bytes.

    `peak_rss` counts pages that processes share once for each of them, `peak_pss` once.
    """

    stdout: str
    seconds: float
    peak_rss: int
    peak_pss: int


def run_tree(command: Sequence[str], env: Mapping[str, str]) -> Finished:
    """Run to the end.

    Raises:
        RuntimeError: it failed; the message has the end of what it wrote to stderr.
    """
    started, rss, pss = time.perf_counter(), 0, 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        while process.poll() is None:
            now = [_memory(pid) for pid in tree(process.pid)]
            rss = max(rss, sum(one for one, _ in now))
            pss = max(pss, sum(one for _, one in now))
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - started
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command[0]} failed ({process.returncode}): {err.read()[-2000:]}")
        return Finished(out.read(), seconds, rss, pss)


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            children[int(fields[1])].append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(children[one])
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Resident and proportional bytes of one process; zeros once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    return int(values.get("Rss", 0)) * 1024, int(values.get("Pss", 0)) * 1024
