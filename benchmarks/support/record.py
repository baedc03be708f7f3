"""What is stored with every result: commit, machine, versions."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import platformdirs

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CACHE = platformdirs.user_cache_path("glm-rag") / "benchmarks"  # models of several GB
_BUSY = 0.5
# What decides which kernel an engine takes.
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "neon", "asimd")


def options_over_data(doc: str | None, *, vectors: bool = True) -> argparse.ArgumentParser:
    """`--data`, `--out` and, for what embeds much, `--vectors`; a script adds its own."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    data = Path(os.environ.get("GLM_RAG_TEST_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=data)
    if vectors:
        parser.add_argument("--vectors", type=Path, help="file that keeps vectors between runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def save(folder: Path, name: str, packages: Iterable[str], values: Mapping[str, Any]) -> Path:
    """Write `name.json` with where and with what it was measured; returns its path."""
    result = {
        "benchmark": name,
        "commit": commit(),
        "machine": machine(),
        "versions": {package: _version(package) for package in packages},
        **values,
    }
    path = folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def commit() -> str:
    """The commit measured, with a mark where the working tree differs from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty", "--match="],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def machine() -> dict[str, Any]:
    """Processor, the instructions that matter, cores and system."""
    cpu = _cpuinfo()
    flags = (cpu.get("flags") or cpu.get("Features", "")).split()
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "family": cpu.get("cpu family", ""),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def warn_if_busy() -> float:
    """The load average before a measurement, with a warning where other programs are running.

    llama.cpp's threads wait for each other by spinning: beside one busy program it writes several
    times slower.
    """
    load = os.getloadavg()[0]
    if load > _BUSY:
        print(f"other programs run (load {load:.1f}): expect low figures", file=sys.stderr)
    return round(load, 2)


def _cpuinfo() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as a Markdown table; the first one names the columns."""
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")
