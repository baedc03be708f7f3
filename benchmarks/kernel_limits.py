"""How close is the kernel to what this processor can do at best?

    python benchmarks/kernel_limits.py [--threads N] [--megabytes N]

The limits are measured by `kernel_limits.cpp`: int8 dot products on registers (VNNI), and the
fastest of several ways to read a buffer that no cache holds. The kernel multiplies at ChatGLM2-6B's
largest shape, 4096 -> 27392: 512 rows at once are compared with the first limit, a single row
(bytes of values and scales) with the second. x86-64 with g++ only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from support.record import RESULTS, print_table, save, warn_if_busy

from glm_rag.engine.kernels import native
from glm_rag.engine.quantize import QuantizedTensor, packed_shapes

SOURCE = Path(__file__).with_suffix(".cpp")
COMPILER = ("g++", "-O3", "-march=native", "-std=c++17", "-pthread")
ROWS, COLUMNS = 27392, 4096
FORMATS = ((4, 32), (4, 128), (8, 128))  # bits and group
PREFILL_ROWS = 512
COPIES = 8  # of the weights, used in turn, so that none is still in a cache
REPEATS = 5


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


def random_weight(bits: int, group: int) -> QuantizedTensor:
    """Random values with scales that are all alike."""
    packed, scales = packed_shapes(ROWS, COLUMNS, bits, group)
    values = torch.randint(256, packed, dtype=torch.uint8)
    return QuantizedTensor(
        values, torch.full(scales, 0.002, dtype=torch.float16), ROWS, COLUMNS, bits, group
    )


def seconds_per_product(weights: Sequence[QuantizedTensor], rows: int, repeats: int) -> float:
    """Median seconds of `x [rows, COLUMNS]` times a matrix, float32 in and out."""
    library = native.load()
    x, out = torch.randn(rows, COLUMNS), torch.empty(rows, ROWS)
    seconds = []
    for _ in range(repeats):
        for weight in weights:
            matrix = native.Matrix(
                packed=weight.packed.data_ptr(),
                scales=weight.scales.data_ptr(),
                bias=None,
                rows=weight.rows,
                columns=weight.columns,
                group=weight.group,
                bits=weight.bits,
            )
            started = time.perf_counter()
            library.linear(ctypes.addressof(matrix), x.data_ptr(), rows, out.data_ptr())
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure_kernel(threads: int, limits: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures of the kernel for every format, and their share of the limits of these threads."""
    limit = {row["limit"]: row["value"] for row in limits if row["threads"] == threads}
    native.load().set_threads(threads)
    rows = []
    for bits, group in FORMATS:
        weights = [random_weight(bits, group) for _ in range(COPIES)]
        seconds_per_product(weights[:1], 1, 1)  # starts the threads
        num_bytes = weights[0].packed.nbytes + weights[0].scales.nbytes
        read = num_bytes / seconds_per_product(weights, 1, REPEATS) / 1e9
        seconds = seconds_per_product(weights[:1], PREFILL_ROWS, REPEATS)
        computed = 2 * PREFILL_ROWS * ROWS * COLUMNS / seconds / 1e9
        rows.append(
            {
                "weights": f"int{bits}, group {group}",
                "threads": threads,
                f"M={PREFILL_ROWS}, GOP/s": round(computed),
                "% of VNNI peak": share(computed, limit.get("vnni_gops")),
                "M=1, GB/s": round(read, 1),
                "% of read bandwidth": share(read, limit.get("read_gbs")),
            }
        )
    return rows


def share(value: float, limit: float | None) -> float | None:
    return round(100 * value / limit, 1) if limit else None


def thread_counts(most: int) -> list[int]:
    """1, 2, 4, ... as far as `most`."""
    return [1 << power for power in range(most.bit_length()) if 1 << power <= most]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--megabytes", type=int, default=1536)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = warn_if_busy()
    limits = measure_limits(options.threads, options.megabytes)
    print_table([{key: row[key] for key in ("limit", "threads", "value")} for row in limits])
    kernel = [row for n in thread_counts(options.threads) for row in measure_kernel(n, limits)]
    instructions = native.load().instructions
    values = {"load_before": load, "instructions": instructions, "limits": limits, "kernel": kernel}
    save(options.out, "kernel_limits", ("glm-rag", "torch"), values)
    print_table(kernel)


if __name__ == "__main__":
    main()
