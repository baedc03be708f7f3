"""How close is the kernel to what this processor can do at best?

    python benchmarks/kernel_limits.py [--threads N] [--megabytes N]

The limits are measured by `kernel_limits.cpp`: int8 dot products on registers (VNNI), and the
fastest of several ways to read a buffer that no cache holds. x86-64 with g++ only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.record import RESULTS, print_table, save

SOURCE = Path(__file__).with_suffix(".cpp")
COMPILER = ("g++", "-O3", "-march=native", "-std=c++17", "-pthread")


def measure_limits(threads: int, megabytes: int) -> list[dict[str, Any]]:
    """The best figure of each limit for 1, 2, 4, ... threads, with the way it was reached."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "limits")
        subprocess.run([*COMPILER, str(SOURCE), "-o", program], check=True)
        command = [program, str(threads), str(megabytes)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return best([json.loads(line) for line in done.stdout.splitlines()])


def best(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The highest value of each limit and number of threads."""
    highest: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        key = row["limit"], row["threads"]
        if key not in highest or row["value"] > highest[key]["value"]:
            highest[key] = row
    return list(highest.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--megabytes", type=int, default=1536)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    limits = measure_limits(options.threads, options.megabytes)
    save(options.out, "kernel_limits", ("glm-rag", "torch"), {"limits": limits})
    print_table([{key: row[key] for key in ("limit", "threads", "value")} for row in limits])


if __name__ == "__main__":
    main()
