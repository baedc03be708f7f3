"""Which process is making an answer, so that one cut off by its death is not waited for."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path


def me() -> str:
    """This process: its id, and where the system tells them, when it began and in which boot."""
    return _described(os.getpid())


def is_alive(owner: str) -> bool:
    """Whether the process that `me` described still runs on this machine."""
    pid = owner.partition(" ")[0]
    if not pid.isdecimal():
        return False
    # The id alone may have been given to another process since.
    return _exists(int(pid)) and _describe(int(pid)) == owner


@lru_cache(maxsize=1)
def _described(pid: int) -> str:
    return _describe(pid)


def _describe(pid: int) -> str:
    try:
        # The name in parentheses may hold anything; the start is the 20th field behind it.
        began = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        ticks = began.rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, IndexError):
        return str(pid)
    return f"{pid} {ticks} {boot}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
